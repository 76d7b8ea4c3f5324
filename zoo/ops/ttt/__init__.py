"""Test-time training of a linear model: `ttt_linear` by mini-batches, `ttt_linear_naive` the truth."""

from zoo.ops.ttt.minibatches import ttt_linear
from zoo.ops.ttt.naive import ttt_linear_naive

__all__ = ["ttt_linear", "ttt_linear_naive"]
