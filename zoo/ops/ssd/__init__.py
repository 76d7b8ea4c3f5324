"""Mamba-2's state space in its dual form: step sizes, scalar decays and a skip around linear attention."""

from zoo.ops.ssd.linear import ssd
from zoo.ops.ssd.naive import ssd as ssd_naive

__all__ = ["ssd", "ssd_naive"]
