"""Layers of the delta rule: plain torch in the place of kernels, by class."""

STAND_INS = {}
