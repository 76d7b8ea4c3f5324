"""Queries, keys and values: the features of one projection cut into heads, and turned by their positions."""

from zoo.ops.kernel_log import logged
from zoo.ops.qkv import naive
from zoo.ops.qkv.naive import Convention, Turn, turn

__all__ = ["Convention", "Turn", "split", "turn"]

split = logged("qkv")(naive.split)
