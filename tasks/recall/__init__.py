"""Recall and copying: what stood in the context must be found again."""

from tasks.recall import mqar

__all__ = ["mqar"]
