"""Gated slot attention: softmax attention to a fixed number of slots (Zhang et al. 2024, arXiv:2409.07146, section 3).

    q_t, k_t, v_t = SiLU(x_t W_q), SiLU(x_t W_k), SiLU(x_t W_v),    a_t = σ(x_t W_f)^{1/τ}
    K_t = K_{t−1} diag(a_t) + k_t (1 − a_t)ᵀ,    V_t = diag(a_t) V_{t−1} + (1 − a_t) v_tᵀ
    o_t = V_tᵀ softmax(K_tᵀ q_t),    y_t = RMSNorm(SiLU(o_t)) W_o

per head, with the norm over all heads: K and V hold a key and a value for each of M slots, means of those it was given.
τ = 8 keeps a close to 1. There is no scale 1/√d. With fewer key/value heads, each serves neighbouring query heads.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State, Traits
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH, TORCH_CONVOLUTIONS
from zoo.layers.norms import RMSNorm
from zoo.layers.projections import ProjectedMixer
from zoo.layers.ranges import at_least_one, head_sizes, positive, shared_heads, width_multiple
from zoo.layers.tensors import merge_heads, split_heads, zero_padding, zeros_fp32
from zoo.ops.linear_attention.naive import repeat
from zoo.ops.precision import at_least_fp32
from zoo.ops.slot_attention import slot_attention


@register(
    family="fast weights and matrix states",
    paper="Zhang et al. 2024, Gated Slot Attention for Efficient Linear-Time Sequence Modeling, arXiv:2409.07146",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/gsa.py, fla/models/gsa)",
    deviations=(
        "values pass through SiLU, and outputs before their norm, as in the official code",
        "feature maps are SiLU alone; options that the official layer takes and never reads, such as use_norm, are not",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
        TORCH_CONVOLUTIONS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class GatedSlotAttention(ProjectedMixer):
    """Gated slot attention: softmax over slots, each a decaying mean of the keys and of the values written into it.

    State: `K` (B, H, K, M) and `V` (B, H, M, V) in float32 at least, and the last inputs (B, channels, conv_size − 1)
    of the convolutions.

    Args:
        kv_heads: heads of keys, values and slots; None for as many as queries have.
        expand_k, expand_v: the width of all keys and of all values, relative to D.
        num_slots: M; None for as many as a key is wide.
        use_short_conv, conv_size, conv_bias: a depthwise causal convolution with SiLU over each of q, k and v.
        gate_logit_normalizer: τ. norm_eps: ε of the norm.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    feeds_matmul_only = True

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        kv_heads: int | None = None,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        num_slots: int | None = None,
        use_short_conv: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        gate_logit_normalizer: float = 8.0,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__(context)
        name, D = "gated_slot_attention", context.width
        at_least_one(name, heads=heads, num_slots=num_slots, conv_size=conv_size)
        positive(name, gate_logit_normalizer=gate_logit_normalizer, norm_eps=norm_eps)
        G = shared_heads(name, heads, kv_heads)
        K, V = head_sizes(name, D, heads, expand_k, expand_v)
        self.heads, self.kv_heads, self.K, self.V, self.tau = heads, G, K, V, gate_logit_normalizer
        self.slots = K if num_slots is None else num_slots
        widths = {"q": heads * K, "k": G * K, "v": G * V}
        self.add_projections(D, widths, conv_size if use_short_conv else None, bias=conv_bias, activation="silu")
        self.f_proj = nn.Linear(D, G * self.slots, bias=False)
        self.g_norm = RMSNorm(heads * V, norm_eps)
        self.o_proj = nn.Linear(heads * V, D, bias=False)

    @classmethod
    def width_multiple(cls, *, heads: int, expand_k: float, expand_v: float, **_: Any) -> int:
        return width_multiple(heads, expand_k, expand_v)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        projected, new = self.project(x, mask, state)
        q, k, v = map(F.silu, projected)
        log_decay = zero_padding(F.logsigmoid(at_least_fp32(self.f_proj(x))) * (1 / self.tau), mask)
        k, v, log_decay = (repeat(split_heads(z, self.kv_heads), self.heads) for z in (k, v, log_decay))
        before = None if state is None else (state["K"], state["V"])
        write = -torch.expm1(log_decay)
        o, (new["K"], new["V"]) = slot_attention(split_heads(q, self.heads), k, v, write, log_decay, before)
        y = self.o_proj(self.g_norm(F.silu(merge_heads(o))).to(x.dtype))
        return y, None if state is None else new

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {
            "K": zeros_fp32(batch, self.heads, self.K, self.slots, device=device, dtype=dtype),
            "V": zeros_fp32(batch, self.heads, self.slots, self.V, device=device, dtype=dtype),
            **super().init_state(batch, device=device, dtype=dtype),
        }
