"""The real part of a Fourier transform over time and features."""

from zoo.ops.fourier.real import fourier

__all__ = ["fourier"]
