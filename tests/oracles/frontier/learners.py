"""Layers that learn as they read, and Mamba-3, as flash-linear-attention has them: how each is compared, by class."""

from ..cases import Case

CASES: dict[str, Case] = {}
