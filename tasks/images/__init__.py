"""Images to classify: pixel after pixel, or patch after patch."""

from tasks.images import pathfinder, pixels

__all__ = ["pathfinder", "pixels"]
