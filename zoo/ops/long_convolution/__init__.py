"""Causal convolution as long as the sequence: S4, S4D, H3 and Hyena are made of it."""

from zoo.ops.long_convolution.fft import convolve, skipping
from zoo.ops.long_convolution.naive import convolve as convolve_naive

__all__ = ["convolve", "convolve_naive", "skipping"]
