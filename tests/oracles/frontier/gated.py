"""Layers with decays, slots or levels, as flash-linear-attention has them: how each is compared, by class."""

from ..cases import Case

CASES: dict[str, Case] = {}
