"""Test-time training of a linear model: `ttt_linear` and `titans_linear` by mini-batches, `*_naive` the truth."""

from zoo.ops.ttt.minibatches import ttt_linear
from zoo.ops.ttt.momentum import titans_linear
from zoo.ops.ttt.naive import titans_linear_naive, ttt_linear_naive

__all__ = ["titans_linear", "titans_linear_naive", "ttt_linear", "ttt_linear_naive"]
