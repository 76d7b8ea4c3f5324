"""Banded softmax attention: each query sees the keys at most `before` behind it and at most `after` ahead of it."""

from zoo.ops.local_attention.blocked import attend
from zoo.ops.local_attention.naive import Extra
from zoo.ops.local_attention.naive import attend as attend_naive

__all__ = ["Extra", "attend", "attend_naive"]
