"""Softmax attention to keys that every later step changes: in chunks, and `*_naive` the truth."""

from zoo.ops.carried_attention.chunked import path_attention, wall_attention
from zoo.ops.carried_attention.naive import PathState, WallState, path_attention_naive, wall_attention_naive

__all__ = [
    "PathState",
    "WallState",
    "path_attention",
    "path_attention_naive",
    "wall_attention",
    "wall_attention_naive",
]
