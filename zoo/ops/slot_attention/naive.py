"""Gated slot attention as the recurrence reads, one token at a time (Zhang et al. 2024, arXiv:2409.07146, section 3.2).

    K_t = K_{t−1} diag(a_t) + k_t w_tᵀ,    V_t = diag(a_t) V_{t−1} + w_t v_tᵀ,    o_t = V_tᵀ softmax(K_tᵀ q_t)

K holds a key of each of M slots, V a value of each. A step writes its own key and value into slot m with weight w_tm,
where a_tm is kept of what the slot held; w = 1 − a makes of each slot a mean. A step with w = 0 and a = 1 leaves the
state alone. No scale is applied: that is the caller's choice.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops.precision import promote


def slot_attention(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    write: Float[Tensor, "B H T M"],
    log_decay: Float[Tensor, "B H T M"],
    state: tuple[Float[Tensor, "B H K M"], Float[Tensor, "B H M V"]] | None = None,
) -> tuple[Float[Tensor, "B H T V"], tuple[Float[Tensor, "B H K M"], Float[Tensor, "B H M V"]]]:
    """Outputs in v's dtype, and the final K and V, float32 at least, from a state or zero.

    `write` is w_t and `log_decay` ln a_t ≤ 0, of each slot; −inf forgets all.
    """
    dtype, outputs = promote(q, k, v, write, log_decay, *(state or ())), []
    K, V = (x.to(dtype) for x in (zero_slots(k, v, write) if state is None else state))
    for t in range(q.shape[2]):
        q_t, k_t, v_t, w_t, g_t = (x[:, :, t].to(dtype) for x in (q, k, v, write, log_decay))
        K = K * g_t.exp()[..., None, :] + k_t[..., :, None] * w_t[..., None, :]
        V = g_t.exp()[..., :, None] * V + w_t[..., :, None] * v_t[..., None, :]
        p = (q_t[..., :, None] * K).sum(-2).softmax(-1)
        outputs.append((p[..., :, None] * V).sum(-2).to(v.dtype))
    return torch.stack(outputs, dim=2), (K, V)


def zero_slots(
    k: Float[Tensor, "B H T K"], v: Float[Tensor, "B H T V"], write: Float[Tensor, "B H T M"]
) -> tuple[Float[Tensor, "B H K M"], Float[Tensor, "B H M V"]]:
    """Empty slots for inputs of these shapes."""
    B, H, _, M = write.shape
    return write.new_zeros(B, H, k.shape[-1], M), write.new_zeros(B, H, M, v.shape[-1])
