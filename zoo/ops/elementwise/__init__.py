"""Element by element: gates between linear layers, features that stay positive, and gates that decay."""

from zoo.ops.elementwise.fused import log_sigmoid, positive, swiglu

__all__ = ["log_sigmoid", "positive", "swiglu"]
