"""The causal convolution as the equation reads."""

import torch
from jaxtyping import Float
from torch import Tensor


def convolve(
    u: Float[Tensor, "B T D"], K: Float[Tensor, "D T"], skip: Float[Tensor, " D"] | float = 0.0, start: int = 0
) -> Float[Tensor, "B T-start D"]:
    """y_t = Σ_{s≤t} K_s u_{t−s}, and skip ⊙ u_t, per channel, for t from `start` on."""
    steps = range(start, u.shape[1])
    y = torch.stack([torch.einsum("dt,btd->bd", K[:, : t + 1].flip(1), u[:, : t + 1]) for t in steps], dim=1)
    return y + skip * u[:, start:]
