"""Layers with decays, slots or levels: plain torch in the place of kernels, by class."""

STAND_INS = {}
