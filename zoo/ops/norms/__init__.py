"""Norms over the last axis, of a layer or of a head: before linear layers, before and behind matrix-valued states."""

from zoo.ops.arguments import checked
from zoo.ops.forms import compiled
from zoo.ops.kernel_log import logged
from zoo.ops.norms import naive
from zoo.ops.norms.naive import SMALLEST_SUM, Activation

__all__ = ["SMALLEST_SUM", "Activation", "gated_rms", "layer", "rms", "simplex", "unit"]

rms = compiled("rms")(naive.rms)
gated_rms = compiled("gated_rms")(naive.gated_rms)
layer = logged("layer")(checked(naive.layer))
simplex = logged("simplex")(checked(naive.simplex))
unit = logged("unit")(checked(naive.unit))
