"""FoX, the forgetting transformer: attention with a forget gate (Lin et al. 2025, arXiv:2503.02130, section 3).

    q, k, v = x W_q, x W_k, x W_v,    f = σ(x W_f + b_f)        (a gate f of each query head)
    y_t = Σ_{s ≤ t} softmax_s(q_t·k_s / √d + D_ts) v_s W_o,    D_ts = Σ_{s < r ≤ t} ln f_r

There are no positions: how far back a head looks is what its gates say. With a_s the sum of ln f over all steps behind
s, D_ts = a_s − a_t, of which a_t is the same for all keys and cancels in the softmax: a_s is a bias of key s alone.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, Part, State, Traits
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH
from zoo.layers.attention import remember, visible
from zoo.layers.linear import branch_, few
from zoo.layers.norms import GroupRMSNorm
from zoo.layers.ranges import head_width, shared_heads
from zoo.layers.tensors import merge_heads, split_heads, zero_padding, zeros_fp32
from zoo.ops.attention import attend


@register(
    family="transformers",
    paper="Lin et al. 2025, Forgetting Transformer: Softmax Attention with a Forget Gate, arXiv:2503.02130, section 3",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/forgetting_attn.py)",
    deviations=(
        "4 heads whatever the width; the official default is 32",
        "no window_size: the official layer gives it to its cache alone, not to its attention",
        "the paper's Pro block has output norms and shifts keys and values as well, which the official layer has not",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class ForgettingAttention(Mixer):
    """FoX (LLaMA): softmax attention whose scores decay by a gate per head and step, without positions.

    State: the cache `k` and `v` (B, kv_heads, T, d), and `decay` (B, H, T) in float32 at least: of each key, the sum of
    ln f of all steps behind it.

    Args:
        kv_heads: heads of keys and values; None for as many as queries have. qkv_bias: of W_q, W_k and W_v.
        qk_norm: RMSNorm of each query and key, with weights for each head.
        use_output_gate: the gate σ(x W_g) on the outputs, before W_o.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        kv_heads: int | None = None,
        qkv_bias: bool = False,
        qk_norm: bool = False,
        use_output_gate: bool = False,
    ) -> None:
        super().__init__(context)
        D, d = context.width, head_width("forgetting", context.width, heads)
        self.heads, self.kv_heads, self.gain = heads, shared_heads("forgetting", heads, kv_heads), context.gain
        self.q_proj = nn.Linear(D, D, bias=qkv_bias)
        self.k_proj = nn.Linear(D, self.kv_heads * d, bias=qkv_bias)
        self.v_proj = nn.Linear(D, self.kv_heads * d, bias=qkv_bias)
        self.f_proj = nn.Linear(D, heads)
        self.g_proj = nn.Linear(D, D, bias=False) if use_output_gate else None
        self.o_proj = nn.Linear(D, D, bias=False)
        self.q_norm = GroupRMSNorm(heads, D) if qk_norm else None
        self.k_norm = GroupRMSNorm(self.kv_heads, self.kv_heads * d) if qk_norm else None

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        q, k, v = self.q_proj(x), self.k_proj(x), split_heads(self.v_proj(x), self.kv_heads)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = split_heads(q, self.heads), split_heads(k, self.kv_heads)
        log_f = F.logsigmoid(few(x, self.f_proj.weight, self.f_proj.bias))
        log_f = zero_padding(log_f, mask).transpose(1, 2)
        decay = F.pad(log_f[..., 1:], (0, 1)).flip(-1).cumsum(-1).flip(-1)
        k, v, valid, new = remember(state, k, v, mask)
        if state is not None and new is not None:
            q = q.to(k.dtype)
            new["decay"] = decay = torch.cat([state["decay"] + log_f.sum(-1, keepdim=True), decay], dim=-1)
        o = attend(q, k, v, visible=visible(valid, x.shape[1]), causal=True, bias=decay[:, :, None])
        o = merge_heads(o)
        return self.o_proj(o if self.g_proj is None else o * self.g_proj(x).sigmoid()), new

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        d = self.o_proj.in_features // self.heads
        k = torch.empty(batch, self.kv_heads, 0, d, device=device, dtype=dtype)
        return {"k": k, "v": k, "decay": zeros_fp32(batch, self.heads, 0, device=device, dtype=dtype)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `branch_`; b_f = 0, so that a head at first forgets half at every step."""
        gates: Any = [gate for gate in (self.f_proj, self.g_proj) if gate is not None]
        branch_(self.q_proj, self.k_proj, *gates, values=self.v_proj, out=self.o_proj, depth=depth, gain=self.gain)
        for norm in (self.q_norm, self.k_norm):
            if norm is not None:
                nn.init.ones_(norm.weight)
