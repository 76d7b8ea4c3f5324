"""Native sparse attention (Yuan et al. 2025, arXiv:2502.11089, section 3).

    y_t = (g_t^cmp o_t^cmp + g_t^slc o_t^slc + g_t^win o_t^win) W_o,    g_t^c = σ(x_t W_g^c)
    o_t^cmp = Σ_i p_ti mean(V_i),    p_ti = softmax_i(q_t·mean(K_i) / √d)        over blocks i that are past at t
    o_t^slc = Σ_j softmax_j(q_t·k_j / √d) v_j,    j ≤ t,  ⌊j/B⌋ ∈ I_t
    o_t^win = Σ_j softmax_j(q_t·k_j / √d) v_j,    t − w < j ≤ t

per head of width d. Keys and values stand in blocks K_i, V_i of B steps, and q and k are rotated. I_t is the same for
all query heads that share keys: the first block, t's own and the one before that, and those with the largest p_ti,
averaged over these heads; `block_counts` in all. The choice itself has no gradient.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH
from zoo.layers import banded_attention
from zoo.layers.blocks import largest, lined_up, means, seen
from zoo.layers.linear import few
from zoo.layers.positions.in_attention import places
from zoo.layers.projected_attention import ProjectedAttention
from zoo.layers.ranges import at_least_one
from zoo.layers.tensors import in_fp32, merge_heads, zero_padding
from zoo.ops.attention import attend
from zoo.ops.linear_attention.naive import repeat

FORCED = 3
"""Blocks that are always selected."""


@register(
    family="efficient attention",
    paper="Yuan et al. 2025, Native Sparse Attention: Hardware-Aligned and Natively Trainable Sparse Attention, "
    "arXiv:2502.11089",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/nsa.py, fla/ops/nsa, fla/models/nsa)",
    deviations=(
        "a block is compressed to its mean, as in the official code; the paper has an MLP over blocks that overlap",
        "blocks to compress and to select are the same, and the branches share keys and values, as in the official "
        "code; in the paper they differ",
        "4 heads that share one of keys, blocks of 16 of which 8 are selected, windows of 64, where the official "
        "defaults are 64 heads of 64 features that share 4, blocks of 64, 16 and 512; groups of any size, where the "
        "official kernel wants 16 heads at least",
        "scores of keys that were not selected are computed and masked: the cost is that of full attention",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
    positions="rope",
)
class NSA(ProjectedAttention):
    """Native sparse attention: to means of blocks, to the blocks whose means matter most, and to a sliding window.

    State: `k` and `v` (B, G, S, d), each at its step of the row, and `steps` (B,), the number of a row's steps.

    Args:
        kv_heads: G, heads of keys and values; None for as many as queries have.
        head_dim: d; None for width / heads.
        qkv_bias: of W_q, W_k and W_v.
        block_size: B. block_counts: how many blocks are selected, 3 at least.
        window_size: w.
    """

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        kv_heads: int | None = 1,
        head_dim: int | None = None,
        qkv_bias: bool = False,
        block_size: int = 16,
        block_counts: int = 8,
        window_size: int = 64,
    ) -> None:
        super().__init__(context, "nsa", heads=heads, kv_heads=kv_heads, head_dim=head_dim, qkv_bias=qkv_bias)
        at_least_one("nsa", block_size=block_size, window_size=window_size)
        if block_counts < FORCED:
            raise ValueError(
                f"nsa: block_counts must be at least {FORCED}, got {block_counts}: "
                "the first block, a query's own and the one before that are always selected"
            )
        self.block_size, self.block_counts, self.window_size = block_size, block_counts, window_size
        self.g_proj = nn.Linear(context.width, 3 * heads, bias=False)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        now, count = places(state, x.shape[1], mask, x.device)
        q, k, v = self.project(x, now)
        k, v = lined_up(state, k, v, now)
        branches = self.branches(q.to(k.dtype), k, v, now, first=state is None)
        gates = few(x, self.g_proj.weight).sigmoid().unflatten(-1, (self.heads, 3)).transpose(1, 2)
        y = sum(gate[..., None] * o for gate, o in zip(gates.unbind(-1), branches, strict=True))
        return self.o_proj(merge_heads(y).to(x.dtype)), None if state is None else {"k": k, "v": v, **count}

    def branches(
        self,
        q: Float[Tensor, "B H T d"],
        k: Float[Tensor, "B G S d"],
        v: Float[Tensor, "B G S d"],
        now: Int[Tensor, "#B T"],
        *,
        first: bool,
    ) -> tuple[Float[Tensor, "B H T d"], Float[Tensor, "B H T d"], Float[Tensor, "B H T d"]]:
        """o^cmp, o^slc and o^win of queries at the steps `now`; in the `first` call keys stand where they do."""
        k_cmp, v_cmp = means(k, self.block_size), means(v, self.block_size)
        end = self.block_size * torch.arange(1, k_cmp.shape[2] + 1, device=q.device)
        past = end <= now[:, None, :, None] + 1
        selected = self.select(q, k_cmp, past, now).repeat_interleave(self.heads // self.kv_heads, dim=1)
        o_cmp = attend(q, k_cmp, v_cmp, visible=past)
        o_slc = attend(q, k, v, visible=seen(selected, self.block_size, now, k.shape[2]))
        if first:
            return o_cmp, o_slc, banded_attention.attend(q, k, v, before=self.window_size - 1)
        behind = now[:, None, :, None] - torch.arange(k.shape[2], device=q.device)
        return o_cmp, o_slc, attend(q, k, v, visible=(behind >= 0) & (behind < self.window_size))

    @torch.no_grad()
    @in_fp32
    def select(
        self,
        q: Float[Tensor, "B H T d"],
        k_cmp: Float[Tensor, "B G N d"],
        past: Bool[Tensor, "#B 1 T N"],
        now: Int[Tensor, "#B T"],
    ) -> Bool[Tensor, "B G T N"]:
        """I_t of queries at the steps `now`."""
        scores = q @ repeat(k_cmp, self.heads).mT * self.head_width**-0.5
        p = scores.masked_fill(~past, float("-inf")).softmax(-1).unflatten(1, (self.kv_heads, -1)).mean(2)
        block, own = torch.arange(k_cmp.shape[2], device=q.device), now[:, None, :, None] // self.block_size
        forced = (block == 0) | (block == own - 1) | (block == own)
        p = p.masked_fill(~past, -1).masked_fill(forced, 2)
        return largest(p, self.block_counts) & (past | forced)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        steps = torch.zeros(batch, device=device, dtype=torch.long)
        return {**super().init_state(batch, device=device, dtype=dtype), "steps": steps}
