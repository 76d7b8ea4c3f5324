"""Gated DeltaProduct: n delta steps for each token (Siems et al. 2025, arXiv:2502.10297, section 3).

    q_t, k_{t,j}, v_{t,j} = unit(SiLU(conv(x W_q)))_t, unit(SiLU(conv(x W_{k,j})))_t, SiLU(conv(x W_{v,j}))_t
    β_{t,j} = 2 σ(x_t W_{b,j}),    ln α_t = −e^A softplus(x_t W_a + b)        (one of each per head, j = 1, …, n)
    S_{t,0} = α_t S_{t−1},    S_{t,j} = S_{t,j−1} + β_{t,j} k_{t,j} (v_{t,j} − S_{t,j−1}ᵀ k_{t,j})ᵀ,    S_t = S_{t,n}
    y_t = (RMSNorm(S_tᵀ q_t / √d) ⊙ SiLU(x_t W_g)) W_o

A token moves S by a product of n generalised Householder matrices I − β_{t,j} k_{t,j} k_{t,j}ᵀ, each a reflection where
β = 2: two make a rotation, whose eigenvalues are complex, and n make every permutation of n + 1 elements. A is the
parameter `A_log`, b `dt_bias`. With more value heads than key heads, each key head serves as many consecutive value
heads.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH, TORCH_CONVOLUTIONS
from zoo.layers.delta_rule import DeltaRuleMixer, decay_, head_sizes, in_turn, log_decay
from zoo.layers.linear import few
from zoo.layers.ranges import at_least_one, positive
from zoo.layers.tensors import zero_padding
from zoo.ops.delta_rule import delta_rule
from zoo.ops.linear_attention.naive import repeat


@register(
    family="fast weights and matrix states",
    paper="Siems et al. 2025, DeltaProduct: Improving State-Tracking in Linear RNNs via Householder Products, "
    "arXiv:2502.10297",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/gated_deltaproduct.py)",
    deviations=(
        "4 heads of ¾ of the width between them (all of it without a gate), as in Gated DeltaNet; "
        "the official default is 6 heads of 256 at width 2048",
        "e^A_log starts at 1e-4 at least; the official U(0, 16) may draw 0, whose logarithm would never move",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
        TORCH_CONVOLUTIONS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class GatedDeltaProduct(DeltaRuleMixer):
    """Gated DeltaProduct: several steps of the delta rule for each token, negative eigenvalues, one decay per token.

    State: `S` (B, H_v, K, V) in float32 at least, and the last inputs (B, channels, conv_size − 1) of the convolutions.

    Args:
        num_householder: n.
        head_dim: K; None for ¾ of the width over the heads, or all of it without a gate.
        expand_v: V / K.
        value_heads: H_v, a multiple of `heads`; None for as many.
        use_output_gate: the gate SiLU(x W_g) on the output.
        use_forget_gate: the decay α; 1 without.
        use_short_conv, conv_size, conv_bias: the convolutions on q, k and v.
        allow_neg_eigval: β in (0, 2) instead of (0, 1).
    """

    parts = 4  # keys take three of them

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        expand_v: float = 2.0,
        value_heads: int | None = None,
        use_output_gate: bool = True,
        use_short_conv: bool = True,
        conv_size: int = 4,
        conv_bias: bool = False,
        norm_eps: float = 1e-5,
        use_forget_gate: bool = True,
        allow_neg_eigval: bool = True,
        num_householder: int = 2,
    ) -> None:
        at_least_one("gated_delta_product", conv_size=conv_size, num_householder=num_householder)
        positive("gated_delta_product", norm_eps=norm_eps)
        D, n = context.width, num_householder
        keys = (0.75 if use_output_gate else 1.0) * D
        H, K, V = head_sizes("gated_delta_product", keys, heads, value_heads, head_dim, expand_v)
        super().__init__(context, heads=heads, value_heads=H, K=K, V=V, allow_neg_eigval=allow_neg_eigval, steps=n)
        self.b_proj = nn.Linear(D, n * H, bias=False)
        self.use_forget_gate = use_forget_gate
        if use_forget_gate:
            self.a_proj = nn.Linear(D, H, bias=False)
            self.add_decay(H)
        if use_short_conv:
            self.add_convolutions(conv_size, bias=conv_bias)
        self.add_output(norm_eps, gate="swish" if use_output_gate else None)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x, n, g = zero_padding(x, mask), self.steps, None
        q, k, v, new = self.project(x, mask, state)
        q, k = (repeat(z, self.value_heads) for z in (q, k))
        beta = in_turn(zero_padding(self.beta(x), mask), n).transpose(1, 2)
        if self.use_forget_gate:
            g = zero_padding(log_decay(few(x, self.a_proj.weight), self.A_log, self.dt_bias), mask).transpose(1, 2)
            g = F.pad(g[..., None], (0, n - 1)).flatten(2)  # a token decays at its first step
        q = F.pad(q[:, :, :, None], (0, 0, n - 1, 0)).flatten(2, 3)  # and reads behind its last
        o, new["S"] = delta_rule(q, k, v, beta, g, None if state is None else state["S"])
        return self.read(o[:, :, n - 1 :: n], x), None if state is None else new

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `decay_`; the rest as DeltaNet."""
        super().reset_parameters(layer=layer, depth=depth)
        if self.use_forget_gate:
            decay_(self.A_log, self.dt_bias)
