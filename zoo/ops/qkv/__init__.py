"""Queries, keys and values: the features of one projection cut into heads, and turned by their positions."""

from zoo.ops.qkv.fused import split
from zoo.ops.qkv.naive import Convention, Turn, turn
from zoo.ops.qkv.naive import split as split_naive

__all__ = ["Convention", "Turn", "split", "split_naive", "turn"]
