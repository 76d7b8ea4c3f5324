"""Norms over the last axis, of a layer or of a head: before linear layers, before and behind matrix-valued states."""

from zoo.ops.norms.fused import gated_rms, layer, rms, simplex, summed, unit
from zoo.ops.norms.naive import SMALLEST_SUM

__all__ = ["SMALLEST_SUM", "gated_rms", "layer", "rms", "simplex", "summed", "unit"]
