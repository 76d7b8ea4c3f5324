"""Wall attention: softmax attention in which every channel of a score decays by itself (Averbuch & Pai 2026).

    q_t, k_t, v_t = x_t W_q, x_t W_k, x_t W_v,    g_t = ln σ(x_t W_g + b_g)        (a gate of every query channel)
    a_tj = Σ_n q_tn k_jn e^{g_{j+1,n} + ... + g_tn} / √d,    y_t = Σ_{j ≤ t} softmax_j(a_tj) v_j W_o

per head of width d, without other positions. A step makes all keys before it fade, k_j ← e^{g_t} ⊙ k_j. b_g = 8 at
first, so that they hardly do. Optionally a scalar gate of each head, s_t = ln σ(x_t W_s + b_s), adds Σ_{j < r ≤ t} s_r
to a_tj, as in FoX, and σ(x_t W_u) gates the output.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State, Traits
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH
from zoo.layers.linear import branch_, few
from zoo.layers.multi_head import MultiHead
from zoo.layers.norms import GroupRMSNorm
from zoo.layers.ranges import shared_heads
from zoo.layers.tensors import merge_heads, split_heads, zero_padding, zeros_fp32
from zoo.ops.carried_attention import WallState, wall_attention


@register(
    family="transformers",
    paper="Averbuch & Pai 2026, Wall Attention: Length Generalization With Diagonal Gates, "
    "https://blog.tilderesearch.com/blog/wall-attn",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/wall_attn.py, fla/models/wall_transformer)",
    deviations=(
        "4 heads, where the official default is 32",
        "no sliding window, which is off in the official code by default, and no sink, which its layer does not use",
        "the cache holds keys of every query head as the last step left them; the official one scales them by chunk",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class WallAttention(MultiHead):
    """Wall attention: keys fade channel by channel, as the gates of all later steps say.

    State: `k` (B, H, S, d), all keys as the last step left them, in float32 at least; `v` (B, G, S, d); `valid`
    (B, 1, S); and with the scalar gate `fade` (B, H, S), the bias that keys have by now.

    Args:
        kv_heads: G, heads of keys and values; None for as many as queries have.
        qkv_bias: of W_q, W_k and W_v. qk_norm: RMSNorm of each query and key, with weights for each head.
        use_output_gate: σ(x W_u). use_scalar_gate: s.
        gate_init_bias: b_g, and b_s, at first.
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
        use_scalar_gate: bool = False,
        gate_init_bias: float = 8.0,
    ) -> None:
        super().__init__(context, "wall", heads)
        self.kv_heads, self.gate_init_bias = shared_heads("wall", heads, kv_heads), gate_init_bias
        D, keys = context.width, self.kv_heads * self.head_width
        self.q_proj = nn.Linear(D, D, bias=qkv_bias)
        self.k_proj = nn.Linear(D, keys, bias=qkv_bias)
        self.v_proj = nn.Linear(D, keys, bias=qkv_bias)
        self.g_proj = nn.Linear(D, D)
        self.gs_proj = nn.Linear(D, heads) if use_scalar_gate else None
        self.o_gate_proj = nn.Linear(D, D, bias=False) if use_output_gate else None
        self.o_proj = nn.Linear(D, D, bias=False)
        self.q_norm = GroupRMSNorm(heads, D) if qk_norm else None
        self.k_norm = GroupRMSNorm(self.kv_heads, keys) if qk_norm else None

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x, before = zero_padding(x, mask), None
        if state is not None:
            before = WallState(k=state["k"], v=state["v"], valid=state["valid"], fade=state.get("fade"))
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = split_heads(q, self.heads), split_heads(k, self.kv_heads), split_heads(v, self.kv_heads)
        g = split_heads(self._log_gate(x, self.g_proj, mask), self.heads)
        fade = None if self.gs_proj is None else self._log_gate(x, self.gs_proj, mask).transpose(1, 2)
        o, after = wall_attention(q, k, v, g, fade, None if mask is None else mask[:, None], before)
        y = merge_heads(o).to(x.dtype)
        y = self.o_proj(y if self.o_gate_proj is None else self.o_gate_proj(x).sigmoid() * y)
        return y, None if state is None else {name: z for name, z in after.items() if z is not None}

    def _log_gate(self, x: Float[Tensor, "B T D"], linear: nn.Linear, mask: Mask | None) -> Float[Tensor, "B T F"]:
        """ln σ(x W + b), 0 in padding, which changes no key."""
        return zero_padding(F.logsigmoid(few(x, linear.weight, linear.bias)), mask)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        of: dict[str, Any] = {"device": device, "dtype": dtype}
        d = self.head_width
        state: State = {
            "k": zeros_fp32(batch, self.heads, 0, d, **of),
            "v": torch.empty(batch, self.kv_heads, 0, d, **of),
        }
        state["valid"] = torch.empty(batch, 1, 0, device=device, dtype=torch.bool)
        if self.gs_proj is not None:
            state["fade"] = zeros_fp32(batch, self.heads, 0, **of)
        return state

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `branch_`; biases of the gates at 8, σ of which is almost 1; norm weights one."""
        linear = [module for module in self.children() if isinstance(module, nn.Linear)]
        branch_(*linear, values=self.v_proj, out=self.o_proj, depth=depth, gain=self.gain)
        for gate in (self.g_proj, self.gs_proj):
            if gate is not None:
                nn.init.constant_(gate.bias, self.gate_init_bias)
        for norm in (self.q_norm, self.k_norm):
            if norm is not None:
                nn.init.ones_(norm.weight)
