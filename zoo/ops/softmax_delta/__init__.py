"""The delta rule with softmax attention as its memory: `softmax_delta` in chunks, `softmax_delta_naive` the truth."""

from zoo.ops.softmax_delta.chunked import softmax_delta
from zoo.ops.softmax_delta.naive import Stored, softmax_delta_naive

__all__ = ["Stored", "softmax_delta", "softmax_delta_naive"]
