"""MLA, attention with a latent cache (DeepSeek-AI 2024, DeepSeek-V2, arXiv:2405.04434, section 2.1 and appendix C).

    c = RMSNorm(x W_DKV),    k^C, v = c W_UK, c W_UV,    k^R = R x W_KR,    q^C, q^R = x W_Q, R x W_QR
    o_t = Σ_{s ≤ t} softmax_s((q^C_t·k^C_s + q^R_t·k^R_s) / √(d_C + d_R)) v_s,    y = concat(o_1, ..., o_H) W_O

Heads share one latent c and one key k^R, the only one that R turns by positions: these are what a cache holds. With a
cache W_UK is multiplied into the query and W_UV behind the sum, so that latents are read as they lie:

    q^C·k^C = (q^C W_UKᵀ)·c,    Σ p_s v_s = (Σ p_s c_s) W_UV
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State, Traits
from zoo.deviations import INITIAL_WEIGHTS
from zoo.layers.attention import remember, steps, visible
from zoo.layers.linear import fan_in_, residual_scale
from zoo.layers.multi_head import MultiHead
from zoo.layers.norms import RMSNorm
from zoo.layers.ranges import at_least_one, positive
from zoo.layers.tensors import merge_heads, split_heads, zero_padding
from zoo.ops.attention import attend


@register(
    family="transformers",
    paper="DeepSeek-AI 2024, DeepSeek-V2: A Strong, Economical, and Efficient Mixture-of-Experts Language Model, "
    "arXiv:2405.04434, section 2.1",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/mla.py)",
    deviations=(
        "sizes follow the width in the proportions of DeepSeek-V2-Lite: d_C and d_V are the width over heads, d_R is "
        "half of that, the latent a quarter of the width, queries are not compressed; official defaults are 128, 64 "
        "and 512, and a latent of 1536 for queries",
        "the cache holds latents, as in the paper; the official layer caches keys and values of all heads",
        "rotations pair features i and i + d/2, as in the official layer; those of DeepSeek's weights are 2i and "
        "2i + 1 (`positions: {rope: {convention: interleaved}}`)",
        "no YaRN, whose scale the official layer computes and never uses; blocks have a SwiGLU, not experts",
        INITIAL_WEIGHTS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
    positions="rope",
)
class MultiheadLatentAttention(MultiHead):
    """MLA: attention whose keys and values are made from one low-rank latent, which is all that is cached.

    State: `v`, the latents c (B, 1, T, kv_lora_rank), and `k`, the turned keys k^R (B, 1, T, qk_rope_head_dim).

    Args:
        q_lora_rank: of the latent that queries are made from; None to project x itself.
        qk_rope_head_dim: d_R. qk_nope_head_dim: d_C. v_head_dim: d_V. kv_lora_rank: of c. None: see the deviations.
        norm_eps: ε of the latents' norms; DeepSeek's is 1e-6.
    """

    traits = Traits(causal="strict", bidirectional=True, resumable=True)
    feeds_matmul_only = True
    relative = ("rotation",)

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        q_lora_rank: int | None = None,
        qk_rope_head_dim: int | None = None,
        kv_lora_rank: int | None = None,
        v_head_dim: int | None = None,
        qk_nope_head_dim: int | None = None,
        norm_eps: float = 1e-5,
    ) -> None:
        at_least_one("mla", heads=heads, q_lora_rank=q_lora_rank, kv_lora_rank=kv_lora_rank)
        at_least_one("mla", v_head_dim=v_head_dim, qk_nope_head_dim=qk_nope_head_dim)
        positive("mla", norm_eps=norm_eps)
        D, d = context.width, context.width // heads
        super().__init__(
            context, "mla", heads, d // 2 if qk_rope_head_dim is None else qk_rope_head_dim, "qk_rope_head_dim"
        )
        rank = D // 4 if kv_lora_rank is None else kv_lora_rank
        self.nope = d if qk_nope_head_dim is None else qk_nope_head_dim
        self.v_dim = d if v_head_dim is None else v_head_dim
        self.scale = (self.nope + self.head_width) ** -0.5
        self.q_proj = low_rank(D, q_lora_rank, heads * (self.nope + self.head_width), norm_eps)
        self.k_rope = nn.Linear(D, self.head_width, bias=False)
        self.kv_proj: Any = low_rank(D, rank, heads * (self.nope + self.v_dim), norm_eps)
        self.o_proj = nn.Linear(heads * self.v_dim, D, bias=False)

    @classmethod
    def width_multiple(cls, *, heads: int, **_: Any) -> int:
        return 4 * heads  # half a head turns pairs of features

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        T, now = x.shape[1], steps(state, x.shape[1], x.device)
        q, q_rope = split_heads(self.q_proj(x), self.heads).split([self.nope, self.head_width], dim=-1)
        q_rope, k_rope = self.positions.rotate_both(q_rope, self.k_rope(x)[:, None], now)
        k_rope, c, valid, new = remember(state, k_rope, self.kv_proj[:2](x)[:, None], mask)
        how = {"visible": visible(valid, T), "causal": self.causal, "scale": self.scale}
        if state is None:
            k, v = split_heads(self.kv_proj[2](c[:, 0]), self.heads).split([self.nope, self.v_dim], dim=-1)
            k = torch.cat([k, k_rope.expand(-1, self.heads, -1, -1)], dim=-1)
            o = attend(torch.cat([q, q_rope], dim=-1), k, v, **how)
        else:
            up = self.kv_proj[2].weight.unflatten(0, (self.heads, -1))
            W_k, W_v = up.split([self.nope, self.v_dim], dim=1)
            q = torch.cat([q @ W_k, q_rope], dim=-1).to(c.dtype)
            o = attend(q, torch.cat([c, k_rope], dim=-1), c, **how) @ W_v.mT
        return self.o_proj(merge_heads(o)), new

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        k = torch.empty(batch, 1, 0, self.head_width, device=device, dtype=dtype)
        return {"k": k, "v": k.new_empty(batch, 1, 0, self.kv_proj[0].out_features)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """Linear layers N(0, 1/fan_in), W_O scaled by 1/√(2·depth), or values and W_O by DeepNorm's β; norms 1."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                fan_in_(module)
            elif isinstance(module, RMSNorm):
                module.reset_parameters()
        fan_in_(self.o_proj, self.gain or residual_scale(depth))
        if self.gain is not None:
            with torch.no_grad():
                self.kv_proj[2].weight.unflatten(0, (self.heads, -1))[:, self.nope :] *= self.gain


def low_rank(width: int, rank: int | None, features: int, eps: float) -> nn.Linear | nn.Sequential:
    """x to features through a normed latent of `rank`; None for one matrix."""
    if rank is None:
        return nn.Linear(width, features, bias=False)
    down, up = nn.Linear(width, rank, bias=False), nn.Linear(rank, features, bias=False)
    return nn.Sequential(down, RMSNorm(rank, eps=eps), up)
