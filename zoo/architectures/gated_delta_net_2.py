"""Gated DeltaNet-2: erasing and writing have gates of their own (Hatamizadeh, Choi and Kautz 2026, arXiv:2605.22791).

    q_t, k_t, v_t = unit(SiLU(conv(x W_q)))_t, unit(SiLU(conv(x W_k)))_t, SiLU(conv(x W_v))_t
    b_t = σ(x_t W_b),    w_t = σ(x_t W_w),    ln α_t = −e^A softplus(x_t W_{f1} W_{f2} + δ)
    S ← diag(α_t) S_{t−1},    S_t = S + k_t (w_t ⊙ v_t − Sᵀ (b_t ⊙ k_t))ᵀ
    y_t = (RMSNorm(S_tᵀ q_t / √d) ⊙ σ(x_t W_{g1} W_{g2} + c)) W_o

b erases by key channel, w writes by value channel; where both are one number β, this is Kimi delta attention. A is the
parameter `A_log`, one per head, δ `dt_bias`. With more value heads than key heads, each key head with its b and α
serves as many consecutive value heads.
"""

from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH
from zoo.layers.delta_rule import DeltaRuleMixer, LowRank, decay_, head_sizes, log_decay
from zoo.layers.ranges import at_least_one, positive
from zoo.layers.tensors import split_heads, zero_padding
from zoo.ops.delta_rule import dplr
from zoo.ops.linear_attention.naive import repeat
from zoo.ops.precision import at_least_fp32


@register(
    family="fast weights and matrix states",
    paper="Hatamizadeh, Choi and Kautz 2026, Gated DeltaNet-2: Decoupling Erase and Write in Linear Attention, "
    "arXiv:2605.22791",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/gdn2.py); "
    "https://github.com/NVlabs/GatedDeltaNet-2",
    deviations=(
        "4 heads, the width divided among them; the official default is 16 heads of 128 at width 2048",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
        "convolutions keep PyTorch's initial values, as in the official layer alone",
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
)
class GatedDeltaNet2(DeltaRuleMixer):
    """Gated DeltaNet-2: a delta rule that erases by key channel, writes by value channel and decays by key channel.

    State: `S` (B, H_v, K, V) in float32 at least, and the last inputs (B, channels, conv_size − 1) of the convolutions.

    Args:
        head_dim: K; None for the width over the heads.
        expand_v: V / K.
        value_heads: H_v, a multiple of `heads`; None for as many.
        use_short_conv, conv_size, conv_bias: the convolutions on q, k and v.
        allow_neg_eigval: b in (0, 2) instead of (0, 1).
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
        norm_eps: float = 1e-5,
    ) -> None:
        at_least_one("gated_delta_net_2", conv_size=conv_size)
        positive("gated_delta_net_2", norm_eps=norm_eps)
        D = context.width
        H, K, V = head_sizes("gated_delta_net_2", D, heads, value_heads, head_dim, expand_v)
        super().__init__(context, heads=heads, value_heads=H, K=K, V=V, allow_neg_eigval=allow_neg_eigval)
        if use_short_conv:
            self.add_convolutions(conv_size, bias=conv_bias)
        self.f_proj = LowRank(D, V, heads * K)
        self.b_proj = nn.Linear(D, heads * K, bias=False)
        self.w_proj = nn.Linear(D, H * V, bias=False)
        self.add_decay(heads, K)
        self.add_output(norm_eps, gate="sigmoid", low_rank=True)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        q, k, v, new = self.project(x, mask, state)
        b = self.largest_beta * at_least_fp32(self.b_proj(x)).sigmoid()
        w = at_least_fp32(self.w_proj(x)).sigmoid()
        g = zero_padding(log_decay(self.f_proj.exact(x), self.A_log, self.dt_bias), mask)
        b, g, k = split_heads(b, self.heads), split_heads(g, self.heads), zero_padding(k, mask, 2)
        erase = g.exp() * b * k  # dplr erases what the state holds before it decays
        q, k, erase, g = (repeat(z, self.value_heads) for z in (q, k, erase, g))
        v = split_heads(w, self.value_heads) * v
        o, new["S"] = dplr(q, k, v, erase, -k, g, None if state is None else state["S"])
        return self.read(o, x), None if state is None else new

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """e^{A_log} ~ U(1, 16), dt_bias: see `decay_`; the rest as DeltaNet."""
        super().reset_parameters(layer=layer, depth=depth)
        decay_(self.A_log, self.dt_bias, slowest=1.0)
