"""Linear layers with a bias."""

from zoo.ops.linear.fused import linear

__all__ = ["linear"]
