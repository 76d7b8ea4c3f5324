"""Attention over a fixed number of slots that forget as they are written: `slot_attention` in chunks."""

from zoo.ops.slot_attention.chunked import slot_attention
from zoo.ops.slot_attention.naive import slot_attention as slot_attention_naive

__all__ = ["slot_attention", "slot_attention_naive"]
