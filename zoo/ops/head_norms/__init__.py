"""Norms over the width of a head, some with a gate: what stands before and behind matrix-valued states."""

from zoo.ops.head_norms.fused import gated_rms, rms, simplex, unit
from zoo.ops.head_norms.naive import SMALLEST_SUM

__all__ = ["SMALLEST_SUM", "gated_rms", "rms", "simplex", "unit"]
