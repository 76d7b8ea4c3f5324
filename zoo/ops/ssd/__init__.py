"""Mamba-2's state space in its dual form: step sizes, scalar decays and a skip around linear attention."""

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops.kernel_log import log_kernel
from zoo.ops.linear_attention import linear_attention
from zoo.ops.ssd.naive import ssd as ssd_naive

__all__ = ["ssd", "ssd_naive"]


def ssd(
    x: Float[Tensor, "b H T P"],
    delta: Float[Tensor, "b H T"],
    g: Float[Tensor, "b H T"],
    B: Float[Tensor, "b G T N"],
    C: Float[Tensor, "b G T N"],
    D: Float[Tensor, "H P"],
    state: Float[Tensor, "b H N P"] | None = None,
    chunk: int = 64,
) -> tuple[Float[Tensor, "b H T P"], Float[Tensor, "b H N P"]]:
    """See `naive.ssd`; y is in x's dtype, decays and states are float32 at least."""
    log_kernel("ssd", "linear attention")
    y, S = linear_attention(C, B, delta.to(x.dtype)[..., None] * x, g, state, chunk)
    return torch.addcmul(y, D[:, None].to(x.dtype), x), S
