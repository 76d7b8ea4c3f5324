"""Pairs of features turned as complex numbers."""

from zoo.ops.rotation.fused import rotate
from zoo.ops.rotation.naive import rotate as rotate_naive

__all__ = ["rotate", "rotate_naive"]
