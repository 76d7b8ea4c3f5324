"""Pairs of features turned as complex numbers."""

from zoo.ops.kernel_log import logged
from zoo.ops.rotation import naive

__all__ = ["rotate"]

rotate = logged("rotation")(naive.rotate)
