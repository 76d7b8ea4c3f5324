"""Gated linear attention as the recurrence reads, one token at a time (Yang et al. 2024, arXiv:2312.06635, eq. 3).

    S_t = diag(a_t) S_{t-1} + k_t v_tᵀ,    o_t = S_tᵀ q_t

The output reads the state after its update. No scale is applied to q or k: that is the caller's choice. With a_t = 1
it is linear attention (Katharopoulos et al. 2020, arXiv:2006.16236), with a scalar a_t per head RetNet and Mamba-2.

With a bonus u the output reads the state before its update, and the present token by u (Peng et al. 2024,
arXiv:2404.05892, section 4; RWKV-5 and RWKV-6):

    o_t = S_{t-1}ᵀ q_t + (q_t · (u ⊙ k_t)) v_t
"""

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops.precision import promote


def recurrent(
    q: Float[Tensor, "B G T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B H T V"],
    log_decay: Float[Tensor, "#B H T"] | Float[Tensor, "#B H T K"] | None = None,
    state: Float[Tensor, "B H K V"] | None = None,
    bonus: Float[Tensor, "H K"] | None = None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K V"]]:
    """Outputs in v's dtype and the final state, float32 at least, from a state or zero. `log_decay` is ln a_t ≤ 0.

    Each head of q and k serves H/G neighbouring ones of v.
    """
    dtype, S, outputs = promote(q, k, v, log_decay, state, bonus), state, []
    q, k = (repeat(x, v.shape[1]) for x in (q, k))
    decay = log_decay[..., None] if log_decay is not None and log_decay.ndim == 3 else log_decay
    for t in range(q.shape[2]):
        before, S = S, k[:, :, t, :, None].to(dtype) * v[:, :, t, None, :].to(dtype)
        read = S if bonus is None else bonus.to(dtype)[..., None] * S
        if before is not None:
            kept = 1 if decay is None else decay[:, :, t, :, None].to(dtype).exp()
            S = S + kept * before
            read = S if bonus is None else read + before
        outputs.append((q[:, :, t, :, None].to(dtype) * read).sum(-2).to(v.dtype))
    assert S is not None
    return torch.stack(outputs, dim=2), S


def check_shared(op: str, x: Float[Tensor, "B H *F"], shared: Float[Tensor, "B G *F"]) -> None:
    """Check that each shared head serves as many others.

    Raises:
        ValueError: H is no multiple of G.
    """
    if x.shape[1] % shared.shape[1]:
        raise ValueError(f"{op}: {x.shape[1]} heads cannot share {shared.shape[1]} evenly; expected a multiple")


def repeat(x: Float[Tensor, "B G *F"], H: int) -> Float[Tensor, "B H *F"]:
    """Each head H/G times in a row."""
    return x if x.shape[1] == H else x.repeat_interleave(H // x.shape[1], dim=1)
