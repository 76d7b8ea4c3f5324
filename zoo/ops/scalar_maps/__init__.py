"""Functions of each number by itself: features that stay positive, and gates that decay."""

from zoo.ops.scalar_maps.fused import log_sigmoid, positive

__all__ = ["log_sigmoid", "positive"]
