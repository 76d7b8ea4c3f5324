"""Attention to chosen keys, or along paths, as flash-linear-attention has them: how each is compared, by class."""

from ..cases import Case

CASES: dict[str, Case] = {}
