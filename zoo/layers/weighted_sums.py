"""Attention that weighs by φ(q_t)·φ(k_s): sums over steps, which a state of fixed size carries.

    S_t = Σ_{s ≤ t} φ(k_s) v_sᵀ,    z_t = Σ_{s ≤ t} φ(k_s),    y_t = S_tᵀ φ(q_t) / z_t·φ(q_t)

Looking both ways, S and z sum over all steps.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.contract import Mask, State, Unsupported
from zoo.layers.tensors import in_fp32, zero_padding, zeros_fp32
from zoo.ops.linear_attention import linear_attention


def weighted_sums(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    *,
    causal: bool,
    mask: Mask | None,
    state: State | None,
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H T 1"], State | None]:
    """Sᵀq and z·q at every step and, given a state, the next one. Masked steps add nothing to S and z.

    q and k are features already. z is the last column of S, behind a value of 1 at every step.
    """
    k, v, new = zero_padding(k, mask, 2), F.pad(v, (0, 1), value=1.0), None
    if not causal:
        if state is not None:
            raise Unsupported("linear attention that looks both ways cannot continue from a state")
        y = in_fp32(lambda q, k, v: q @ (k.mT @ v))(q, k, v)
    elif state is None:
        y, _ = linear_attention(q, k, v)
    else:
        y, S = linear_attention(q, k, v, state=torch.cat([state["S"], state["z"][..., None]], dim=-1))
        new = {"S": S[..., :-1], "z": S[..., -1]}
    return y[..., :-1], y[..., -1:], new


@in_fp32
def sums_of_keys(
    q: Float[Tensor, "B H T K"], k: Float[Tensor, "B H T K"], z: Float[Tensor, "B H K"] | None, causal: bool = True
) -> tuple[Float[Tensor, "B H T 1"], Float[Tensor, "B H K"]]:
    """z·q at every step, counting on from z, and z after the last step."""
    sums = k.cumsum(2) if causal else k.sum(2, keepdim=True)
    sums = sums if z is None else sums + z[:, :, None]
    return (sums * q).sum(-1, keepdim=True), sums[:, :, -1]


def normalised(
    y: Float[Tensor, "B H T V"], total: Float[Tensor, "B H T 1"], eps: float, least: float = 0.0
) -> Float[Tensor, "B H T V"]:
    """y / (max(total, least) + ε)."""
    weigh = in_fp32(lambda total: ((total.clamp(min=least) if least else total) + eps).reciprocal())
    return y * weigh(total).to(y.dtype)


def zero_sums(batch: int, heads: int, K: int, V: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
    """S (B, H, K, V) and z (B, H, K) before the first step, in float32 at least."""
    S = zeros_fp32(batch, heads, K, V, device=device, dtype=dtype)
    return {"S": S, "z": S[..., 0].clone()}
