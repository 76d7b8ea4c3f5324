"""Gated linear attention with a matrix state: `linear_attention` in chunks, `recurrent` the truth."""

from zoo.ops.arguments import checked
from zoo.ops.linear_attention import chunked
from zoo.ops.linear_attention.chunked import linear_attention
from zoo.ops.linear_attention.naive import recurrent

__all__ = ["linear_attention", "recurrent", "weighted_mean"]

weighted_mean = checked(chunked.weighted_mean)
