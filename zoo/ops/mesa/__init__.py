"""Recursive least squares as a layer: `mesa` by conjugate gradients in chunks, `mesa_naive` the truth."""

from zoo.ops.mesa.chunked import mesa
from zoo.ops.mesa.naive import mesa_naive

__all__ = ["mesa", "mesa_naive"]
