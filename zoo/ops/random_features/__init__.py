"""Positive random features of the softmax kernel, and causal attention by them: Performer's FAVOR+."""

from zoo.ops.random_features.features import attend, mean, positive
from zoo.ops.random_features.naive import HIGHEST, Over, kept
from zoo.ops.random_features.naive import attend as attend_naive
from zoo.ops.random_features.naive import positive as positive_naive

__all__ = ["HIGHEST", "Over", "attend", "attend_naive", "kept", "mean", "positive", "positive_naive"]
