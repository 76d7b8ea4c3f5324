"""PaTH attention: positions by accumulated Householder-like products (Yang et al. 2025, arXiv:2505.16381, section 3).

    q_t, k_t, v_t = x_t W_q, x_t W_k, x_t W_v,    w_t = unit(SiLU(conv(x W_w)))_t,    β_t = 2σ(x_t W_β + b_β)
    H_t = I − β_t w_t w_tᵀ,    a_tj = q_t·H_t ⋯ H_{j+1} k_j / √d,    y_t = Σ_{j ≤ t} softmax_j(a_tj) v_j W_o

per head of width d. A step changes all keys before it, k_j ← H_t k_j, but not its own: a_tt = q_t·k_t / √d. W_w goes
through 32 features. With the forget gate of FoX (Lin et al. 2025, arXiv:2503.02130; PaTH-FoX), ln f_t = ln σ(x_t W_g +
b_g), there is Σ_{j < s ≤ t} ln f_s / √d besides in a_tj.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State, Traits
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH, TORCH_CONVOLUTIONS
from zoo.layers.linear import branch_, few
from zoo.layers.multi_head import MultiHead
from zoo.layers.norms import HeadNorm
from zoo.layers.ranges import at_least_one, shared_heads
from zoo.layers.short_convolution import ShortConvolution
from zoo.layers.tensors import merge_heads, split_heads, zero_padding, zeros_fp32
from zoo.ops import norms
from zoo.ops.carried_attention import PathState, path_attention
from zoo.ops.precision import at_least_fp32
from zoo.ops.short_convolution import Unit

RANK = 32
"""Features that W_w goes through."""


@register(
    family="transformers",
    paper="Yang et al. 2025, PaTH Attention: Position Encoding via Accumulating Householder Transformations, "
    "arXiv:2505.16381",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/path_attn.py, fla/models/path_attn)",
    deviations=(
        "4 heads, where the official default is 32",
        "the forget gate is divided by √d with the scores, as in the official code; FoX has it outside",
        "keys of the cache are float32 at least, as every step changes them; the official ones have the model's dtype",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
        TORCH_CONVOLUTIONS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class PaTH(MultiHead):
    """PaTH attention: each step carries all keys before it through a Householder-like matrix of its own.

    State: `k` (B, G, S, d), all keys as the last step left them, in float32 at least; `v` (B, G, S, d); `valid`
    (B, 1, S); `w`, the last inputs (B, G·d, conv_size − 1) of the convolution; and with a forget gate `fade` (B, H, S),
    the bias that keys have by now.

    Args:
        kv_heads: G, of keys, values and w; None for as many as queries have.
        use_forget_gate: the gate f.
        use_qk_norm: RMSNorm over each head of q and k.
        use_low_rank_w: W_w through 32 features; one full matrix without.
        use_w_shortconv, conv_size, conv_bias: the convolution and SiLU on w.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        kv_heads: int | None = None,
        use_forget_gate: bool = False,
        use_qk_norm: bool = False,
        use_low_rank_w: bool = True,
        use_w_shortconv: bool = True,
        conv_size: int = 3,
        conv_bias: bool = False,
    ) -> None:
        super().__init__(context, "path", heads)
        at_least_one("path", conv_size=conv_size)
        self.kv_heads = shared_heads("path", heads, kv_heads)
        D, keys = context.width, self.kv_heads * self.head_width
        self.q_proj = nn.Linear(D, D, bias=False)
        self.k_proj = nn.Linear(D, keys, bias=False)
        self.v_proj = nn.Linear(D, keys, bias=False)
        low_rank = nn.Sequential(nn.Linear(D, RANK, bias=False), nn.Linear(RANK, keys, bias=False))
        self.w_proj = low_rank if use_low_rank_w else nn.Linear(D, keys, bias=False)
        self.maybe_q_norm, self.maybe_k_norm = (
            HeadNorm(self.head_width, 1e-5) if use_qk_norm else nn.Identity() for _ in range(2)
        )
        self.w_conv1d = ShortConvolution(keys, conv_size, bias=conv_bias) if use_w_shortconv else None
        self.bt_proj = nn.Linear(D, self.kv_heads)
        self.g_proj = nn.Linear(D, heads) if use_forget_gate else None
        self.o_proj = nn.Linear(D, D, bias=False)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x, before = zero_padding(x, mask), None
        if state is not None:
            before = PathState(k=state["k"], v=state["v"], valid=state["valid"], fade=state.get("fade"))
        w, new = self._directions(x, mask, state)
        q = self.maybe_q_norm(split_heads(self.q_proj(x), self.heads))
        k = self.maybe_k_norm(split_heads(self.k_proj(x), self.kv_heads))
        v = split_heads(self.v_proj(x), self.kv_heads)
        beta = zero_padding(2 * few(x, self.bt_proj.weight, self.bt_proj.bias).sigmoid(), mask).transpose(1, 2)
        fade = None
        if self.g_proj is not None:
            gate = F.logsigmoid(few(x, self.g_proj.weight, self.g_proj.bias)) * self.head_width**-0.5
            fade = zero_padding(gate, mask).transpose(1, 2)
        valid = None if mask is None else mask[:, None]
        o, after = path_attention(q.to(v.dtype), k.to(v.dtype), v, w, beta, fade, valid, before)
        new |= {name: z for name, z in after.items() if z is not None}
        return self.o_proj(merge_heads(o).to(x.dtype)), None if state is None else new

    def _directions(
        self, x: Float[Tensor, "B T D"], mask: Mask | None, state: State | None
    ) -> tuple[Float[Tensor, "B G T d"], State]:
        """w, of unit length, and the next state of its convolution."""
        w: Tensor = self.w_proj(x)
        if self.w_conv1d is None:
            return norms.unit(at_least_fp32(split_heads(w, self.kv_heads))), {}
        before = None if state is None else state["w"]
        w, after = self.w_conv1d(w, mask=mask, state=before, unit=Unit((1.0,) * self.kv_heads))
        return split_heads(w, self.kv_heads), {"w": after}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        of: dict[str, Any] = {"device": device, "dtype": dtype}
        shape = batch, self.kv_heads, 0, self.head_width
        state: State = {"k": zeros_fp32(*shape, **of), "v": torch.empty(shape, **of)}
        state["valid"] = torch.empty(batch, 1, 0, device=device, dtype=torch.bool)
        if self.w_conv1d is not None:
            state["w"] = self.w_conv1d.init_state(batch, **of)
        if self.g_proj is not None:
            state["fade"] = zeros_fp32(batch, self.heads, 0, **of)
        return state

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `branch_`; the convolution as PyTorch's, norm weights one."""
        linear = [module for module in self.modules() if isinstance(module, nn.Linear)]
        branch_(*linear, values=self.v_proj, out=self.o_proj, depth=depth, gain=self.gain)
        for module in self.modules():
            if isinstance(module, ShortConvolution | HeadNorm):
                module.reset_parameters()
