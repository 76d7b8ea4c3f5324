"""Hymba: attention heads and Mamba heads read the same input side by side (Dong et al. 2024, section 2).

    q, k, v, u, z = x W_in,    y = ½ (N₁(a) + N₂(m)) W_out
    a_t = Σ_{t − w < s ≤ t} softmax_s(R_t q_t · R_s k_s / √d) v_s,    or s ≤ t in the first, middle and last layer
    u ← SiLU(conv(u)),    Δ', B, C = RMSNorm(u W_x),    Δ = softplus(Δ' W_Δ + b_Δ)
    h_t = e^{Δ_t A} h_{t−1} + Δ_t B_t u_t,    m_t = (C_t h_t + D u_t) ⊙ SiLU(z_t)

with R a rotation, a norm for each of Δ', B and C, and RMSNorms N₁ and N₂, whose weights are the paper's β. Values of
all heads are as wide as the state space has channels. Neighbouring layers with a window share keys and values.
"""

import math
from collections.abc import Collection
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zoo.architectures import register
from zoo.architectures.mamba import Mamba
from zoo.contract import LayerContext, Mask, Mixed, Part, State
from zoo.layers import banded_attention
from zoo.layers.attention import remember, steps, visible
from zoo.layers.linear import branch_
from zoo.layers.local_attention import recall
from zoo.layers.norms import RMSNorm
from zoo.layers.positions import relative
from zoo.layers.positions.in_attention import places
from zoo.layers.ranges import head_width, shared_heads, width_multiple
from zoo.layers.tensors import merge_heads, split_heads, zero_padding
from zoo.ops.attention import attend


class Shared(NamedTuple):
    """What the layers that share keys and values read in a pass."""

    steps: Int[Tensor, "#B T"]
    """Positions of the queries."""
    k: Float[Tensor, "B G S d"]
    v: Float[Tensor, "B G S e"]
    valid: Bool[Tensor, "B S"] | None
    """Which keys are no padding; None for all."""


@register(
    family="hybrids",
    paper="Dong et al. 2024, Hymba: A Hybrid-head Architecture for Small Language Models, arXiv:2411.13676",
    source="https://huggingface.co/nvidia/Hymba-1.5B-Base (modeling_hymba.py); https://github.com/NVlabs/hymba "
    "(barebones_hymba)",
    deviations=(
        "no meta tokens, which officially are 128 learned vectors before the sequence that every window sees too",
        "the window is 64 steps, or a shorter length, by default, itself included; officially it is 1024 beside itself",
        "1 of 4 heads has keys and values by default, officially 5 of 25; the SwiGLU is 8/3 times as wide, not 3.44",
        "the base of rotations does not grow with the length, and the output head is not tied to the token table",
        "weights start at N(0, 1/fan_in), the projection to the residual at 1/√(2·depth) of it, and the state space as "
        "in mamba; officially all matrices are N(0, 0.02), and Δ's bias 0",
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
    positions="rope",
    depth=8,
)
class Hymba(Mamba):
    """Hymba: grouped-query attention, mostly to a window, and Mamba side by side, each normed, then averaged.

    State: that of Mamba, `conv` and `h`; and but for layers that read another's, the cache `k` (B, kv_heads, S, d) and
    `v` (B, kv_heads, S, D·expand / heads): of all steps, or with a window of the last w − 1, and `steps` (B) so far.

    Args:
        kv_heads: heads of keys and values, each shared by heads / kv_heads query heads.
        kq_head_dim: d, of queries and keys; None for the width over heads. The minimal code in NVlabs/hymba has those
            of values.
        window: w, at most `context.length`; None for 64, or the whole length where that is less.
        global_attn_idx: the layers without a window, from 0; None for the first, the middle and the last.
        kv_reuse: layers with a window share keys and values by pairs, see `source`.
        d_state, d_conv, expand, dt_rank, conv_bias, bias, inner_norms: see `zoo.architectures.mamba`.
    """

    relative = ("rotation",)
    shared_context = True

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        kv_heads: int = 1,
        kq_head_dim: int | None = None,
        window: int | None = None,
        global_attn_idx: tuple[int, ...] | None = None,
        kv_reuse: bool = True,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2.0,
        dt_rank: int | Literal["auto"] = "auto",
        conv_bias: bool = True,
        bias: bool = False,
        inner_norms: bool = True,
    ) -> None:
        space = {"d_state": d_state, "d_conv": d_conv, "expand": expand, "dt_rank": dt_rank}
        super().__init__(context, conv_bias=conv_bias, bias=bias, inner_norms=inner_norms, **space)  # type: ignore[arg-type]
        D, inner, layer = context.width, len(self.D), context.layer
        self.heads, self.kv_heads, self.layer = heads, shared_heads("hymba", heads, kv_heads), layer
        self.d = head_width("hymba", D, heads, kq_head_dim, "kq_head_dim")
        self.e = head_width("hymba: values", inner, heads)
        self.positions = relative(context.positions, heads=heads, head_width=self.d, causal=True)
        full = (0, (context.depth - 1) // 2, context.depth - 1) if global_attn_idx is None else global_attn_idx
        self.window = None if layer in full else min(64, context.length) if window is None else window
        if window is not None and not 1 <= window <= context.length:
            raise ValueError(f"hymba: window {window} must lie in 1 .. {context.length}, the sequence length")
        self.source = source(layer, context.depth, full) if kv_reuse else layer
        cached = self.kv_heads if self.source == layer else 0
        self.sizes = [heads * self.d, cached * self.d, cached * self.e, inner, inner]
        self.in_proj = nn.Linear(D, sum(self.sizes), bias=bias)
        self.pre_avg_layernorm1, self.pre_avg_layernorm2 = RMSNorm(inner, eps=1e-6), RMSNorm(inner, eps=1e-6)
        self.reset_parameters(layer=layer, depth=context.depth)

    @classmethod
    def width_multiple(cls, *, heads: int, expand: float, **_: Any) -> int:
        return math.lcm(2 * heads, width_multiple(heads, expand))  # rotations turn pairs of features

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Mask | None = None,
        state: State | None = None,
        shared_context: dict[str, Any] | None = None,
    ) -> Mixed:
        """`shared_context` has keys and values, as "hymba." and the layer that made them.

        Raises:
            ValueError: the layer whose keys and values this one reads has not run.
        """
        q, k, v, u, z = self.in_proj(zero_padding(x, mask)).split(self.sizes, dim=-1)
        shared: dict[str, Any] = {} if shared_context is None else shared_context
        cache: State = {}
        if self.source == self.layer:
            shared[f"hymba.{self.layer}"], cache = self.keys(k, v, mask, state)
        elif f"hymba.{self.source}" not in shared:
            raise ValueError(f"hymba: layer {self.layer} reads keys and values of layer {self.source}, which has none")
        a = self.attend(q, shared[f"hymba.{self.source}"])
        m, new = self.scan(u, z, mask, state)
        y = (self.pre_avg_layernorm1(a) + self.pre_avg_layernorm2(m)) / 2
        return self.out_proj(y), None if new is None else {**new, **cache}

    def keys(
        self, k: Float[Tensor, "B T _"], v: Float[Tensor, "B T _"], mask: Mask | None, state: State | None
    ) -> tuple[Shared, State]:
        """The keys and values that steps may see, turned, behind those of the cache; and the next cache."""
        T, device = k.shape[1], k.device
        now = steps(state, T, device) if self.window is None else places(state, T, mask, device)[0]
        k = self.positions.rotate(split_heads(k, self.kv_heads), now, key=True)
        keep = remember if self.window is None else recall
        k, v, valid, new = keep(state, k, split_heads(v, self.kv_heads), mask)
        return Shared(now, k, v, valid), new or {}

    def attend(self, q: Float[Tensor, "B T F"], to: Shared) -> Float[Tensor, "B T I"]:
        """Attention of all heads."""
        turned = self.positions.rotate(split_heads(q, self.heads), to.steps, key=False).to(to.k.dtype)
        if self.window is None:
            y = attend(turned, to.k, to.v, visible=visible(to.valid, q.shape[1]), causal=True)
        else:
            y = banded_attention.attend(turned, to.k, to.v, before=self.window - 1, valid=to.valid)
        return merge_heads(y.to(q.dtype))

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        state = super().init_state(batch, device=device, dtype=dtype)
        if self.source != self.layer:
            return state
        past = 0 if self.window is None else self.window - 1
        k, v = (torch.zeros(batch, self.kv_heads, past, n, device=device, dtype=dtype) for n in (self.d, self.e))
        count = {} if self.window is None else {"steps": torch.zeros(batch, device=device, dtype=torch.long)}
        return {**state, "k": k, "v": v, **count}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """As Mamba, but for projections: see `branch_`."""
        super().reset_parameters(layer=layer, depth=depth)
        branch_(self.in_proj, out=self.out_proj, depth=depth)


def source(layer: int, depth: int, full: Collection[int]) -> int:
    """The layer whose keys and values `layer` reads: layers without a window, those in `full`, read their own.

    Those between share by pairs, and where they are odd in number, the first three (kv_reuse_group in the config of
    nvidia/Hymba-1.5B-Base).
    """
    if layer in full:
        return layer
    first = max(i + 1 for i in (-1, *full) if i < layer)
    behind = min(i for i in (*full, depth) if i > layer)
    at, odd = layer - first, (behind - first) % 2
    return first if at < 2 + odd else layer - (at - odd) % 2
