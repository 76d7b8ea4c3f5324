"""Attention with other logits, caches or gates, as flash-linear-attention has them: how each is compared, by class."""

from ..cases import Case

CASES: dict[str, Case] = {}
