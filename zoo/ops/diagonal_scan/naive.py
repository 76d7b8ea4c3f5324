"""The diagonal recurrence as the equation reads."""

import torch
from jaxtyping import Inexact
from torch import Tensor


def scan(
    a: Inexact[Tensor, "B T *F"], b: Inexact[Tensor, "B T *F"], h0: Inexact[Tensor, "B *F"] | None = None
) -> Inexact[Tensor, "B T *F"]:
    """Every h_t = a_t h_{t-1} + b_t over axis 1, real or complex, from h0 (zero by default)."""
    h = torch.zeros_like(b[:, 0]) if h0 is None else h0
    states = []
    for t in range(b.shape[1]):
        h = step(a[:, t], b[:, t], h)
        states.append(h)
    return torch.stack(states, dim=1)


def step(a: Inexact[Tensor, "B *F"], b: Inexact[Tensor, "B *F"], h: Inexact[Tensor, "B *F"]) -> Inexact[Tensor, "B *F"]:
    """One step: a h + b."""
    return a * h + b
