"""Kimi delta attention: Gated DeltaNet with a decay per key channel (Kimi Team 2025, arXiv:2510.26692, section 3).

    q_t, k_t, v_t = unit(SiLU(conv(x W_q)))_t, unit(SiLU(conv(x W_k)))_t, SiLU(conv(x W_v))_t,    β_t = σ(x_t W_b)
    ln α_t = −e^A softplus(x_t W_{f1} W_{f2} + b)        (one for each key channel)
    S ← diag(α_t) S_{t−1},    S_t = S + β_t k_t (v_t − Sᵀ k_t)ᵀ
    y_t = (RMSNorm(S_tᵀ q_t / √d) ⊙ σ(x_t W_{g1} W_{g2} + c)) W_o

A is the parameter `A_log`, one per head, b `dt_bias`. The matrices of the decay and of the output gate are of low rank.
With more value heads than key heads, each key head serves as many consecutive value heads, which have decays of their
own.
"""

from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH, TORCH_CONVOLUTIONS
from zoo.layers.delta_rule import DeltaRuleMixer, LowRank, decay_, head_sizes, log_decay
from zoo.layers.ranges import at_least_one, positive
from zoo.layers.tensors import split_heads, zero_padding
from zoo.ops.delta_rule import dplr
from zoo.ops.linear_attention.naive import repeat


@register(
    family="fast weights and matrix states",
    paper="Kimi Team 2025, Kimi Linear: An Expressive, Efficient Attention Architecture, arXiv:2510.26692",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/kda.py, fla/models/kda)",
    deviations=(
        "every layer is Kimi delta attention; Kimi Linear has one of full attention behind every three",
        "4 heads, the width divided among them; the official default is 16 heads of 128 at width 2048",
        "A_log starts at 0 wherever there is a lower_bound; the official code asks for that with safe_gate besides",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
        TORCH_CONVOLUTIONS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class KDA(DeltaRuleMixer):
    """Kimi delta attention: the delta rule with a decay per key channel, short convolutions and an output gate.

    State: `S` (B, H_v, K, V) in float32 at least, and the last inputs (B, channels, conv_size − 1) of the convolutions.

    Args:
        head_dim: K; None for the width over the heads.
        expand_v: V / K.
        value_heads: H_v, a multiple of `heads`; None for as many.
        use_short_conv, conv_size, conv_bias: the convolutions on q, k and v.
        allow_neg_eigval: β in (0, 2) instead of (0, 1).
        lower_bound: the least ln α; it is then lower_bound · σ(e^A (x_t W_{f1} W_{f2} + b)). None for no bound.
    """

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        head_dim: int | None = None,
        expand_v: float = 1.0,
        value_heads: int | None = None,
        use_short_conv: bool = True,
        conv_size: int = 4,
        conv_bias: bool = False,
        allow_neg_eigval: bool = False,
        lower_bound: float | None = None,
        norm_eps: float = 1e-5,
    ) -> None:
        at_least_one("kda", conv_size=conv_size)
        positive("kda", norm_eps=norm_eps)
        if lower_bound is not None and lower_bound >= 0:
            raise ValueError(f"kda: lower_bound of log decays must be negative, got {lower_bound}")
        D = context.width
        H, K, V = head_sizes("kda", D, heads, value_heads, head_dim, expand_v)
        super().__init__(context, heads=heads, value_heads=H, K=K, V=V, allow_neg_eigval=allow_neg_eigval)
        self.lower_bound = lower_bound
        if use_short_conv:
            self.add_convolutions(conv_size, bias=conv_bias)
        self.f_proj = LowRank(D, V, H * K)
        self.b_proj = nn.Linear(D, H, bias=False)
        self.add_decay(H, K)
        self.add_output(norm_eps, gate="sigmoid", low_rank=True)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        q, k, v, new = self.project(x, mask, state)
        q, k = (repeat(z, self.value_heads) for z in (q, k))
        beta, g = (split_heads(zero_padding(z, mask), self.value_heads) for z in (self.beta(x), self.log_decay(x)))
        write, erase = beta * k, g.exp() * k  # dplr erases what the state holds before it decays
        o, new["S"] = dplr(q, write, v, erase, -write, g, None if state is None else state["S"], floor=self.lower_bound)
        return self.read(o, x), None if state is None else new

    def log_decay(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T G"]:
        """ln α of every channel of all value heads."""
        return log_decay(self.f_proj.exact(x), self.A_log, self.dt_bias, self.lower_bound)

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """e^{A_log} ~ U(1, 16), or 1 with a `lower_bound`; dt_bias: see `decay_`. The rest as DeltaNet."""
        super().reset_parameters(layer=layer, depth=depth)
        decay_(self.A_log, self.dt_bias, slowest=1.0)
        if self.lower_bound is not None:
            nn.init.zeros_(self.A_log)
