"""Linear layers: with a bias, several of one input, and those of few outputs in full precision."""

from zoo.ops.linear.fused import few, joined, linear

__all__ = ["few", "joined", "linear"]
