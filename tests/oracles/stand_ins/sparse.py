"""Attention to chosen keys, or along paths: plain torch in the place of kernels, by class."""

STAND_INS = {}
