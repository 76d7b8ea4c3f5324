"""Attention with other logits, caches or gates: plain torch in the place of kernels, by class."""

STAND_INS = {}
