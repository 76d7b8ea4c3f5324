"""Mixture of block attention (Lu et al. 2025, arXiv:2502.13189, section 2).

    s_ti = q_t·mean(K_i),    i < ⌊t/C⌋
    y_t = RMSNorm(Σ_j softmax_j(q_t·k_j / √d) v_j) W_o,    j ≤ t,    ⌊j/C⌋ ∈ I_t

per head of width d. Keys stand in blocks K_i of C steps, and q and k are rotated. I_t are a query's own block, ⌊t/C⌋,
and the topk − 1 earlier ones of the largest s_ti. The choice itself has no gradient.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH
from zoo.layers.blocks import largest, lined_up, means, seen
from zoo.layers.norms import HeadNorm
from zoo.layers.positions.in_attention import places
from zoo.layers.projected_attention import ProjectedAttention
from zoo.layers.ranges import at_least_one
from zoo.layers.tensors import in_fp32, zero_padding
from zoo.ops.attention import attend
from zoo.ops.linear_attention.naive import repeat


@register(
    family="efficient attention",
    paper="Lu et al. 2025, MoBA: Mixture of Block Attention for Long-Context LLMs, arXiv:2502.13189",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/moba.py, fla/models/moba); "
    "https://github.com/MoonshotAI/MoBA",
    deviations=(
        "4 heads and blocks of 32 steps, where the official defaults are 32 and 256 (paper: 512 and more)",
        "decoding goes on choosing blocks; the official code then sees all keys",
        "a topk of 1 leaves the own block alone; the official code takes all keys then",
        "an RMSNorm over each head before W_o, as in the official layer; the paper has none",
        "with fewer heads of keys each query head still chooses for itself; the official kernel wants as many",
        "scores of what no query chose are computed and masked: the cost is that of full attention",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
    positions="rope",
)
class MoBA(ProjectedAttention):
    """Mixture of block attention: each query sees its own block of keys, and those with the most similar mean key.

    State: `k` and `v` (B, G, S, d), each at its step of the row, and `steps` (B,), the number of a row's steps.

    Args:
        kv_heads: G, heads of keys and values; None for as many as queries have.
        qkv_bias: of W_q, W_k and W_v. qk_norm: RMSNorm over each head of q and k.
        moba_chunk_size: C. moba_topk: how many blocks a query sees, its own included.
        use_output_gate: a gate σ(x W_g) behind the norm of each head, W_g through d features.
    """

    feeds_matmul_only = True

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        kv_heads: int | None = None,
        qkv_bias: bool = False,
        qk_norm: bool = False,
        moba_chunk_size: int = 32,
        moba_topk: int = 4,
        use_output_gate: bool = False,
    ) -> None:
        super().__init__(context, "moba", heads=heads, kv_heads=kv_heads, qkv_bias=qkv_bias, qk_norm=qk_norm)
        at_least_one("moba", moba_chunk_size=moba_chunk_size, moba_topk=moba_topk)
        self.chunk_size, self.topk, D, d = moba_chunk_size, moba_topk, context.width, self.head_width
        low_rank = nn.Sequential(nn.Linear(D, d, bias=False), nn.Linear(d, D, bias=False))
        self.g_proj = low_rank if use_output_gate else None
        self.o_norm = HeadNorm(d, 1e-6, "sigmoid")

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        now, count = places(state, x.shape[1], mask, x.device)
        q, k, v = self.project(x, now)
        k, v = lined_up(state, k, v, now)
        visible = seen(self.choose(q, k, now), self.chunk_size, now, k.shape[2])
        y = attend(q.to(k.dtype), k, v, visible=visible).transpose(1, 2)
        gate = None if self.g_proj is None else self.g_proj(x).unflatten(-1, (self.heads, -1))
        y = self.o_proj(self.o_norm(y, gate).flatten(2).to(x.dtype))
        return y, None if state is None else {"k": k, "v": v, **count}

    @torch.no_grad()
    @in_fp32
    def choose(
        self, q: Float[Tensor, "B H T d"], k: Float[Tensor, "B G S d"], now: Int[Tensor, "#B T"]
    ) -> Bool[Tensor, "B H T N"]:
        """I_t of queries at the steps `now`."""
        scores = q @ repeat(means(k, self.chunk_size), self.heads).mT
        block, own = torch.arange(scores.shape[-1], device=q.device), now[:, None, :, None] // self.chunk_size
        scores = scores.masked_fill(block >= own, float("-inf"))
        return largest(scores, self.topk - 1) & (block < own) | (block == own)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        steps = torch.zeros(batch, device=device, dtype=torch.long)
        return {**super().init_state(batch, device=device, dtype=dtype), "steps": steps}
