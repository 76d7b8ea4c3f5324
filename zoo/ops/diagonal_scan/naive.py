"""The diagonal recurrence as the equation reads."""

import torch
from torch import Tensor


def scan(a: Tensor, b: Tensor, h0: Tensor | None = None) -> Tensor:
    """h_t = a_t h_{t-1} + b_t over axis 1, from h0 (zero by default).

    Shapes: a, b (B, T, ...), real or complex; h0 (B, ...); returns every h, (B, T, ...).
    """
    h = torch.zeros_like(b[:, 0]) if h0 is None else h0
    states = []
    for t in range(b.shape[1]):
        h = step(a[:, t], b[:, t], h)
        states.append(h)
    return torch.stack(states, dim=1)


def step(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """One step: a h + b, all (B, ...)."""
    return a * h + b
