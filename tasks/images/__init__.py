"""Images to classify: pixel after pixel, or patch after patch."""

from tasks.images import pixels

__all__ = ["pixels"]
