"""Layers that learn while they read, and Mamba-3: plain torch in the place of kernels, by class."""

STAND_INS = {}
