"""Differential attention: a difference of two softmaxes (Ye et al. 2024, arXiv:2410.05258, section 2.1).

    A_i = softmax(R q_i (R k_i)ᵀ / √d),    i = 1, 2        (a head has two queries and two keys of width d)
    o = (A₁ − λ A₂) v,    y = concat_h((1 − λ_init) RMSNorm(o)) W_o
    λ = exp(λ_q1·λ_k1) − exp(λ_q2·λ_k2) + λ_init,    λ_init = 0.8 − 0.6 e^{−0.3 l}

in layer l = 0, 1, ..., with values v of width 2 d. What both softmaxes give to keys that do not matter cancels, as
common noise does in a differential amplifier. λ is one number for all heads of a layer.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, Part, State, Traits
from zoo.layers.attention import remember, steps, visible
from zoo.layers.linear import branch_
from zoo.layers.norms import HeadNorm
from zoo.layers.positions import relative
from zoo.layers.ranges import head_width, shared_heads
from zoo.layers.tensors import in_fp32, split_heads, zero_padding
from zoo.ops.attention import attend


@register(
    family="transformers",
    paper="Ye et al. 2024, Differential Transformer, arXiv:2410.05258, section 2.1",
    source="https://github.com/microsoft/unilm (Diff-Transformer/multihead_diffattn.py)",
    deviations=(
        "rotations pair features i and i + d/2, those of the official code 2i and 2i + 1 "
        "(`positions: {rope: {convention: interleaved}}`); the two are equal up to a permutation of W_q and W_k",
        "λ is computed in float32 under autocast too, and scores of NaN are not set to 0",
        "weights start at N(0, 1/fan_in), the projection to the residual at 1/√(2·depth) of it, officially as PyTorch "
        "has them",
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
    positions="rope",
)
class DifferentialAttention(Mixer):
    """Diff Transformer: each head subtracts one softmax attention from another, and norms the difference.

    State: the cache of turned keys `k` (B, 2 kv_heads, T, d) and of values `v` (B, kv_heads, T, 2 d).

    Args:
        heads: H, of width 2 d = width / H: officially half as many as a transformer would have.
        kv_heads: heads of key pairs and values; None for as many as of queries.
    """

    traits = Traits(causal="strict", bidirectional=True, resumable=True)
    feeds_matmul_only = True
    relative = ("rotation",)

    def __init__(self, context: LayerContext, *, heads: int = 2, kv_heads: int | None = None) -> None:
        super().__init__(context)
        D, H = context.width, 2 * heads
        d, G = head_width("differential", D, H), 2 * shared_heads("differential", heads, kv_heads)
        self.heads, self.kv_heads, self.causal, self.gain = heads, G // 2, context.causal, context.gain
        self.positions = relative(context.positions, heads=H, head_width=d, causal=context.causal)
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * context.layer)
        self.q_proj = nn.Linear(D, D, bias=False)
        self.k_proj = nn.Linear(D, G * d, bias=False)
        self.v_proj = nn.Linear(D, G * d, bias=False)
        self.out_proj = nn.Linear(D, D, bias=False)
        self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2 = (
            nn.Parameter(torch.empty(d)) for _ in range(4)
        )
        self.subln = HeadNorm(2 * d, eps=1e-5)

    @classmethod
    def width_multiple(cls, *, heads: int, **_: object) -> int:
        return 4 * heads  # rotations turn pairs of features

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        T, H, G = x.shape[1], self.heads, self.kv_heads
        q, k = split_heads(self.q_proj(x), 2 * H), split_heads(self.k_proj(x), 2 * G)
        q, k = self.positions.rotate_both(q, k, steps(state, T, x.device))
        k, v, valid, new = remember(state, k, split_heads(self.v_proj(x), G), mask)
        both = attend(q.to(k.dtype), k, v, visible=visible(valid, T), causal=self.causal)
        first, second = both.transpose(1, 2).unflatten(2, (H, 2)).unbind(3)
        o = (1 - self.lambda_init) * self.subln(first - self.lambda_() * second)
        return self.out_proj(o.flatten(2).to(x.dtype)), new

    @in_fp32
    def lambda_(self) -> Float[Tensor, ""]:
        """λ."""
        first, second = self.lambda_q1 @ self.lambda_k1, self.lambda_q2 @ self.lambda_k2
        return first.exp() - second.exp() + self.lambda_init

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        d = len(self.lambda_q1)
        k = torch.empty(batch, 2 * self.kv_heads, 0, d, device=device, dtype=dtype)
        return {"k": k, "v": k.new_empty(batch, self.kv_heads, 0, 2 * d)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `branch_`; vectors of λ ~ N(0, 0.01), as in the official code, so that λ is about λ_init."""
        branch_(self.q_proj, self.k_proj, values=self.v_proj, out=self.out_proj, depth=depth, gain=self.gain)
        for vector in (self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2):
            nn.init.normal_(vector, std=0.1)
        self.subln.reset_parameters()
