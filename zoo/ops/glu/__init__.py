"""Gated linear units."""

from zoo.ops.glu.padded import glu

__all__ = ["glu"]
