"""Comba: the gated delta rule in a closed loop (Hu et al. 2025, arXiv:2506.02475, section 3).

    q̂_t, k̂_t, v_t = SiLU(conv(x W_q))_t, SiLU(conv(x W_k))_t, SiLU(conv(x W_v))_t,    p̂_t = σ(d) k̂_t
    q_t = unit(q̂_t − D p̂_t),    k_t = unit(k̂_t),    p_t = unit(p̂_t)
    β_t = σ(x_t W_b),    ln α_t = −e^A softplus(x_t W_a + b)        (one of each per head)
    S_t = α_t S_{t−1} + β_t k_t (v_t − S_{t−1}ᵀ p_t)ᵀ,    y_t = (RMSNorm(S_tᵀ q_t / √K) ⊙ σ(x_t W_g)) W_o

What p_t reads is the state before its decay, where Gated DeltaNet reads it behind. D corrects the output by the key,
d is the parameter `decay`: as p_t has unit length, it is felt by way of D alone. A is `A_log`, b `dt_bias`.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH, TORCH_CONVOLUTIONS
from zoo.layers.delta_rule import DeltaRuleMixer, decay_, head_sizes, log_decay
from zoo.layers.linear import few
from zoo.layers.ranges import at_least_one, positive
from zoo.layers.tensors import in_fp32, split_heads, zero_padding
from zoo.ops.delta_rule import dplr
from zoo.ops.norms import unit


@register(
    family="fast weights and matrix states",
    paper="Hu et al. 2025, Comba: Improving Bilinear RNNs with Closed-loop Control, arXiv:2506.02475",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/comba.py, fla/models/comba)",
    deviations=(
        "D starts at 0.02, as the official code advises for small models; its default is 1",
        "4 heads of ¾ of the width between them (all of it without a gate), the official advice for any width; "
        "the official default is 6 heads of 256",
        "as many heads of values as of keys",
        "e^A_log starts at 1e-4 at least; the official U(0, 16) may draw 0, whose logarithm would never move",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
        TORCH_CONVOLUTIONS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class Comba(DeltaRuleMixer):
    """Comba: a delta rule that erases from the state before its decay, with a correction of the query.

    State: `S` (B, H, K, V) in float32 at least, and the last inputs (B, channels, conv_size − 1) of the convolutions.

    Args:
        head_dim: K; None for ¾ of the width over the heads, or all of it without a gate.
        expand_v: V / K.
        use_output_gate: the gate σ(x W_g) on the output.
        use_output_correction, correction_factor: D, and what it starts at; 0 without.
        use_inner_decay: σ(d); 1 without.
        use_short_conv, conv_size, conv_bias: the convolutions on q, k and v.
    """

    parts = 4  # keys take three of them

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        expand_v: float = 2.0,
        use_short_conv: bool = True,
        use_output_gate: bool = True,
        use_output_correction: bool = True,
        use_inner_decay: bool = True,
        correction_factor: float = 0.02,
        conv_size: int = 4,
        conv_bias: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        at_least_one("comba", conv_size=conv_size)
        positive("comba", norm_eps=norm_eps)
        D = context.width
        keys = (0.75 if use_output_gate else 1.0) * D
        H, K, V = head_sizes("comba", keys, heads, None, head_dim, expand_v)
        super().__init__(context, heads=H, value_heads=H, K=K, V=V)
        self.a_proj = nn.Linear(D, H, bias=False)
        self.b_proj = nn.Linear(D, H, bias=False)
        self.decay = nn.Parameter(torch.empty(H)) if use_inner_decay else None
        self.D = nn.Parameter(torch.empty(H)) if use_output_correction else None
        self.correction_factor = correction_factor
        self.add_decay(H)
        if use_short_conv:
            self.add_convolutions(conv_size, bias=conv_bias)
        self.add_output(norm_eps, gate="sigmoid" if use_output_gate else None)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        q, k, v, new = self.project(x, mask, state, unit=False)
        q, k, p = self._corrected(q, k)
        g = log_decay(few(x, self.a_proj.weight), self.A_log, self.dt_bias)
        beta, g = (split_heads(zero_padding(z, mask), self.heads) for z in (self.beta(x), g))
        write = beta * k
        o, new["S"] = dplr(q, write, v, p, -write, g.expand_as(k), None if state is None else state["S"])
        return self.read(o, x), None if state is None else new

    @in_fp32
    def _corrected(
        self, q: Float[Tensor, "B H T K"], k: Float[Tensor, "B H T K"]
    ) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B H T K"], Float[Tensor, "B H T K"]]:
        """q / √K, k and p."""
        p = k if self.decay is None else self.decay.sigmoid()[:, None, None] * k
        q = q if self.D is None else q - self.D[:, None, None] * p
        return unit(q, self.K**-0.5), unit(k), unit(p)

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """d = 1, D = `correction_factor`, for A and b see `decay_`; the rest as DeltaNet."""
        super().reset_parameters(layer=layer, depth=depth)
        decay_(self.A_log, self.dt_bias)
        if self.decay is not None:
            nn.init.ones_(self.decay)
        if self.D is not None:
            nn.init.constant_(self.D, self.correction_factor)
