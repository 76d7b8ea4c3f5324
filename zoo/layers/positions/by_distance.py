"""Mega's biases of scores, a number for each distance (Ma et al. 2022, arXiv:2209.10655, the official code)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.layers.tensors import in_fp32


class SimpleBias(nn.Module):
    """One number for every distance below `length`."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.rel_pos_bias = nn.Parameter(torch.empty(2 * length - 1))

    @in_fp32
    def forward(self, C: int) -> Float[Tensor, L]:
        """The biases of distances 1 − C, ..., C − 1."""
        middle = len(self.rel_pos_bias) // 2
        return self.rel_pos_bias[middle - C + 1 : middle + C]


class RotaryBias(nn.Module):
    """b(t, s) = R_t a · R_s b for two vectors a (`alpha`) and b (`beta`), R_t turning pairs (i, i + z/2) by t ω_i.

    It depends on δ = s − t alone: Σ_i (a_i b_i + a_i' b_i') cos(δ ω_i) + (a_i' b_i − a_i b_i') sin(δ ω_i).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(1, width))
        self.beta = nn.Parameter(torch.empty(1, width))

    def forward(self, C: int) -> Float[Tensor, L]:
        """See `SimpleBias.forward`."""
        cos, sin, even, odd = self._turning(C)
        return cos @ even + sin @ odd

    @in_fp32
    def _turning(self, C: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        (a, a2), (b, b2) = self.alpha[0].chunk(2), self.beta[0].chunk(2)
        speed = torch.exp(torch.arange(len(a), device=a.device, dtype=a.dtype) * (-math.log(10000) / len(a)))
        angle = torch.arange(1 - C, C, device=a.device)[:, None] * speed
        return angle.cos(), angle.sin(), a * b + a2 * b2, a2 * b - a * b2
