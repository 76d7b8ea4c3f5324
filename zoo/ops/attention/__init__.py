"""Softmax attention: `attend` picks the fast form for the device and precision at hand."""

from zoo.ops.attention.fused import attend
from zoo.ops.attention.naive import attend as attend_naive

__all__ = ["attend", "attend_naive"]
