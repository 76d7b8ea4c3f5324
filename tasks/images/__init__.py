"""Images to classify: pixel after pixel, or patch after patch."""

from tasks.images import images, pathfinder, pixels

__all__ = ["images", "pathfinder", "pixels"]
