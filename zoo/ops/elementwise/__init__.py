"""What stands between linear layers, element by element: gates."""

from zoo.ops.elementwise.fused import swiglu

__all__ = ["swiglu"]
