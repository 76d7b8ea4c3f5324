"""Gated DeltaNet: the delta rule with Mamba-2's decay (Yang, Kautz and Hatamizadeh 2025, arXiv:2412.06464, section 3).

    q_t, k_t, v_t = unit(SiLU(conv(x W_q)))_t, unit(SiLU(conv(x W_k)))_t, SiLU(conv(x W_v))_t
    β_t = σ(x_t W_b),    ln α_t = −e^A softplus(x_t W_a + b)        (one of each per head)
    S ← α_t S_{t−1},    S_t = S + β_t k_t (v_t − Sᵀ k_t)ᵀ,    y_t = (RMSNorm(S_tᵀ q_t / √d) ⊙ SiLU(x_t W_g)) W_o

A is the parameter `A_log`, b `dt_bias`. With more value heads than key heads, each key head serves as many consecutive
value heads.
"""

from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH, TORCH_CONVOLUTIONS
from zoo.layers.delta_rule import DeltaRuleMixer, decay_, head_sizes, log_decay
from zoo.layers.linear import few
from zoo.layers.ranges import at_least_one, positive
from zoo.layers.tensors import zero_padding
from zoo.ops.delta_rule import delta_rule
from zoo.ops.linear_attention.naive import repeat
from zoo.ops.norms import Activation


@register(
    family="fast weights and matrix states",
    paper="Yang, Kautz and Hatamizadeh 2025, Gated Delta Networks: Improving Mamba2 with Delta Rule, arXiv:2412.06464",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/gated_deltanet.py)",
    deviations=(
        "4 heads of ¾ of the width between them (all of it without a gate), the official advice for any width; "
        "the official default is 6 heads of 256",
        "e^A_log starts at 1e-4 at least; the official U(0, 16) may draw 0, whose logarithm would never move",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
        TORCH_CONVOLUTIONS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class GatedDeltaNet(DeltaRuleMixer):
    """Gated DeltaNet: the delta rule with a decay per head, short convolutions, unit keys and an output gate.

    Args:
        head_dim: K; None for ¾ of the width over the heads, or all of it without a gate, which makes about 6 width²
            parameters (official docstring).
        expand_v: V / K.
        value_heads: H_v, a multiple of `heads`; None for as many.
        use_gate, output_gate_activation: the gate SiLU(x W_g) on the output, or σ(x W_g).
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
        use_gate: bool = True,
        use_short_conv: bool = True,
        conv_size: int = 4,
        conv_bias: bool = False,
        allow_neg_eigval: bool = False,
        norm_eps: float = 1e-5,
        output_gate_activation: Activation = "swish",
    ) -> None:
        at_least_one("gated_delta_net", conv_size=conv_size)
        positive("gated_delta_net", norm_eps=norm_eps)
        D, keys = context.width, (0.75 if use_gate else 1.0) * context.width
        H, K, V = head_sizes("gated_delta_net", keys, heads, value_heads, head_dim, expand_v)
        super().__init__(context, heads=heads, value_heads=H, K=K, V=V, allow_neg_eigval=allow_neg_eigval)
        self.a_proj = nn.Linear(D, H, bias=False)
        self.b_proj = nn.Linear(D, H, bias=False)
        self.add_decay(H)
        if use_short_conv:
            self.add_convolutions(conv_size, bias=conv_bias)
        self.add_output(norm_eps, gate=output_gate_activation if use_gate else None)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        (q, k, v, beta, g), new = self.heads_of(x, mask, state)
        o, new["S"] = delta_rule(q, k, v, beta, g, None if state is None else state["S"])
        return self.read(o, x), None if state is None else new

    def heads_of(
        self, x: Float[Tensor, "B T D"], mask: Mask | None, state: State | None
    ) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor, Tensor], State]:
        """q, k and v (B, H_v, T, ·), β and ln α (B, H_v, T), and the next state of the convolutions."""
        q, k, v, new = self.project(x, mask, state)
        q, k = (repeat(z, self.value_heads) for z in (q, k))
        a = few(x, self.a_proj.weight)  # e^{A_log} up to 16 would make several per cent of α of bfloat16's rounding
        beta, g = self.beta(x), log_decay(a, self.A_log, self.dt_bias)
        beta, g = (zero_padding(z, mask).transpose(1, 2) for z in (beta, g))
        return (q, k, v, beta, g), new

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `decay_`; the rest as DeltaNet."""
        super().reset_parameters(layer=layer, depth=depth)
        decay_(self.A_log, self.dt_bias)
