"""What stands between linear layers, element by element: gates, and what a sublayer adds to the residual stream."""

from zoo.ops.elementwise.fused import add, swiglu

__all__ = ["add", "swiglu"]
