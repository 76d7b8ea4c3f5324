"""DeltaNet: linear attention that overwrites instead of adding (Yang et al. 2024, arXiv:2406.06484, section 3).

    q_t, k_t = norm(act(conv(x W_q)))_t, norm(act(conv(x W_k)))_t,    v_t = SiLU(conv(x W_v))_t,    β_t = σ(x_t W_b)
    S_t = S_{t−1} + β_t k_t (v_t − S_{t−1}ᵀ k_t)ᵀ,    y_t = RMSNorm(S_tᵀ q_t / √d) W_o        (norm per head of width d)

S moves by (I − β_t k_t k_tᵀ): with |k_t| = 1 its eigenvalues are 1 and 1 − β_t. β_t = 2σ(x_t W_b) lets the latter be
negative, with which a layer can track state such as parity (Grazzi et al. 2025, arXiv:2411.12537).
"""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH, TORCH_CONVOLUTIONS
from zoo.layers.delta_rule import DeltaRuleMixer
from zoo.layers.ranges import at_least_one, positive
from zoo.layers.tensors import in_fp32, zero_padding
from zoo.ops import norms
from zoo.ops.delta_rule import delta_rule


@register(
    family="fast weights and matrix states",
    paper="Yang et al. 2024, Parallelizing Linear Transformers with the Delta Rule over Sequence Length, "
    "arXiv:2406.06484",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/delta_net.py, fla/models/delta_net)",
    deviations=(
        "queries are scaled by 1/√d, as in the official code; the paper has no scale (but for ε the norm removes it)",
        "values pass through SiLU after their convolution, as in the official code",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
        TORCH_CONVOLUTIONS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class DeltaNet(DeltaRuleMixer):
    """DeltaNet: linear attention that overwrites what a key held, with short convolutions and unit keys.

    Args:
        expand_k, expand_v: widths of all keys and of all values together, over the model's.
        use_beta: β from the input; 1 without (2 with `allow_neg_eigval`).
        use_gate: multiply the normed output by SiLU(x W_g).
        use_short_conv, conv_size, conv_bias: the convolutions on q, k and v.
        allow_neg_eigval: β in (0, 2) instead of (0, 1).
        qk_activation, qk_norm: act and norm of q and k; `l2` makes them unit vectors, `sum` makes their absolute
            values sum to 1.
    """

    feeds_matmul_only = True

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        use_beta: bool = True,
        use_gate: bool = False,
        use_short_conv: bool = True,
        conv_size: int = 4,
        conv_bias: bool = False,
        allow_neg_eigval: bool = False,
        qk_activation: Literal["silu", "relu", "elu", "identity"] = "silu",
        qk_norm: Literal["l2", "sum"] = "l2",
        norm_eps: float = 1e-5,
    ) -> None:
        at_least_one("delta_net", heads=heads, conv_size=conv_size)
        positive("delta_net", norm_eps=norm_eps)
        D, keys, values = context.width, round(context.width * expand_k), round(context.width * expand_v)
        for what, expand, width in (("key", "expand_k", keys), ("value", "expand_v", values)):
            if width < 1 or width % heads:
                raise ValueError(f"delta_net: {what} width {width} does not divide into {heads} heads ({expand} · {D})")
        K, V = keys // heads, values // heads
        super().__init__(context, heads=heads, value_heads=heads, K=K, V=V, allow_neg_eigval=allow_neg_eigval)
        self.qk_activation, self.qk_norm = qk_activation, qk_norm
        self.unit = qk_norm == "l2" and qk_activation in ("silu", "identity")
        self.use_beta = use_beta
        if use_beta:
            self.b_proj = nn.Linear(D, heads, bias=False)
        if use_short_conv:
            self.add_convolutions(conv_size, bias=conv_bias, activation="silu" if qk_activation == "silu" else None)
        self.add_output(norm_eps, gate="swish" if use_gate else None)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        q, k, v, new = self.project(x, mask, state, silu=self.qk_activation == "silu", unit=self.unit)
        if not self.unit:
            q, k = (self._normalised(z, scale).to(v.dtype) for z, scale in ((q, self.K**-0.5), (k, 1.0)))
        beta = self.beta(x) if self.use_beta else x.new_full((*x.shape[:2], self.heads), self.largest_beta)
        beta = zero_padding(beta, mask).transpose(1, 2)
        o, new["S"] = delta_rule(q, k, v, beta, state=None if state is None else state["S"])
        return self.read(o, x), None if state is None else new

    @in_fp32
    def _normalised(self, x: Float[Tensor, "B H T K"], scale: float) -> Float[Tensor, "B H T K"]:
        if self.qk_activation == "elu":
            x = F.elu(x) + 1
        elif self.qk_activation == "relu":
            x = F.relu(x)
        if self.qk_norm == "l2":
            return norms.unit(x, scale)
        return scale * F.normalize(x, p=1.0, dim=-1, eps=1e-6)
