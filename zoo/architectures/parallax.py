"""Parallax: attention with a learned probe of the covariance of keys and values (Zuo et al. 2026, arXiv:2605.29157).

    p_tj = softmax_j(q_t·k_j / √d),    v̄_t = Σ_j p_tj v_j,    k̄_t = Σ_j p_tj k_j,    j ≤ t
    y_t = (v̄_t − Σ_j p_tj r_t·(k_j − k̄_t) v_j) W_o

per head of width d: from softmax attention's local mean to a local linear estimate, whose slope r_t = x_t W_r asks for
instead of solving for it. q, r and k are rotated; r·k has no scale.
"""

from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH
from zoo.layers.attention import remember, steps, visible
from zoo.layers.norms import HeadNorm
from zoo.layers.projected_attention import ProjectedAttention
from zoo.layers.tensors import merge_heads, zero_padding
from zoo.ops.parallax import parallax


@register(
    family="transformers",
    paper="Zuo et al. 2026, Parallax: Parameterized Local Linear Attention for Language Modeling, arXiv:2605.29157",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/parallax.py, fla/models/parallax)",
    deviations=(
        "4 heads, where the official default is 32",
        "no sliding window, which is off in the official code by default",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
    positions="rope",
)
class Parallax(ProjectedAttention):
    """Parallax: softmax attention less what a second query r finds in the covariance of keys and values.

    State: the cache `k` and `v` (B, G, S, d), and `valid` (B, S) once there was padding.

    Args:
        kv_heads: G, heads of keys and values; None for as many as queries have.
        qkv_bias: of W_q, W_r, W_k and W_v. qk_norm: RMSNorm over each head of q, r and k.
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
    ) -> None:
        super().__init__(context, "parallax", heads=heads, kv_heads=kv_heads, qkv_bias=qkv_bias, qk_norm=qk_norm)
        self.r_proj = nn.Linear(context.width, context.width, bias=qkv_bias)
        self.r_norm = HeadNorm(self.head_width, 1e-5) if qk_norm else None

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x, T = zero_padding(x, mask), x.shape[1]
        now = steps(state, T, x.device)
        q, k, v = self.project(x, now)
        r = self.rotated(self.r_proj(x), self.r_norm, now)
        k, v, valid, new = remember(state, k, v, mask)
        y = parallax(q, r, k, v, visible=visible(valid, T))
        return self.o_proj(merge_heads(y).to(x.dtype)), new
