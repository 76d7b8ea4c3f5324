"""Preconditioned Gated DeltaNet: what is written follows the curvature (Tumma, Loo and Rus 2026, arXiv:2604.21100).

    q_t, k_t, v_t = unit(SiLU(conv(x W_q)))_t, unit(SiLU(conv(x W_k)))_t, SiLU(conv(x W_v))_t
    β_t = σ(x_t W_b),    ln α_t = −e^A softplus(x_t W_a + b),    β̂_t and ln α̂_t alike, of parameters of their own
    A_t = α̂_t A_{t−1} + β̂_t k_t²,    r_t = ln(A_t + ε) − c,    m_t = e^{−ln(z) r_t / (1 + |r_t|)}
    S ← α_t S_{t−1},    S_t = S + β_t (m_t ⊙ k_t) (v_t − Sᵀ k_t)ᵀ,    y_t = (RMSNorm(S_tᵀ q_t / √d) ⊙ SiLU(x_t W_g)) W_o

A_t follows how much each key channel has held, the diagonal of the curvature of ½ |v − Sᵀ k|². Channels that have held
much are written more weakly, by a factor between 1/z and z about the centre c, the parameter `log_atk_scale`. All that
has a hat belongs to heads of keys, and has `atk` in its parameter's name. With more value heads than key heads, each
key head with its A serves as many consecutive value heads.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH, TORCH_CONVOLUTIONS
from zoo.layers.delta_rule import DeltaRuleMixer, decay_, head_sizes, log_decay
from zoo.layers.linear import few
from zoo.layers.ranges import at_least_one, positive
from zoo.layers.tensors import in_fp32, zero_padding, zeros_fp32
from zoo.ops.delta_rule import dplr
from zoo.ops.diagonal_scan import scan
from zoo.ops.linear_attention.naive import repeat


@register(
    family="fast weights and matrix states",
    paper="Tumma, Loo and Rus 2026, Preconditioned DeltaNet: Curvature-aware Sequence Modeling for Linear Recurrences, "
    "arXiv:2604.21100",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/precond_gated_deltanet.py)",
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
class PrecondGatedDeltaNet(DeltaRuleMixer):
    """Preconditioned Gated DeltaNet: keys are written weaker in the channels in which the state has held much.

    State: `S` (B, H_v, K, V) and `A` (B, H, K) in float32 at least, and the last inputs (B, channels, conv_size − 1) of
    the convolutions.

    Args:
        head_dim: K; None for ¾ of the width over the heads, or all of it without a gate.
        expand_v: V / K.
        value_heads: H_v, a multiple of `heads`; None for as many.
        use_gate: the gate SiLU(x W_g) on the output.
        use_short_conv, conv_size, conv_bias: the convolutions on q, k and v.
        allow_neg_eigval: β in (0, 2) instead of (0, 1).
        squash_x, squash_eps: z and ε. log_atk_scale_init: what c starts at.
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
        allow_neg_eigval: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        norm_eps: float = 1e-5,
        squash_x: float = 1.5,
        squash_eps: float = 1e-6,
        log_atk_scale_init: float = -0.2,
    ) -> None:
        name = "precond_gated_delta_net"
        at_least_one(name, conv_size=conv_size)
        positive(name, norm_eps=norm_eps, squash_eps=squash_eps)
        if not 1 < squash_x <= 2:
            raise ValueError(f"{name}: squash_x must lie in (1, 2], beyond which the state may grow, got {squash_x}")
        D, keys = context.width, (0.75 if use_gate else 1.0) * context.width
        H, K, V = head_sizes(name, keys, heads, value_heads, head_dim, expand_v)
        super().__init__(context, heads=heads, value_heads=H, K=K, V=V, allow_neg_eigval=allow_neg_eigval)
        self.squash_x, self.squash_eps, self.log_atk_scale_init = squash_x, squash_eps, log_atk_scale_init
        self.a_proj = nn.Linear(D, H, bias=False)
        self.b_proj = nn.Linear(D, H, bias=False)
        self.a_atk_proj = nn.Linear(D, heads, bias=False)
        self.b_atk_proj = nn.Linear(D, heads, bias=False)
        self.log_atk_scale = nn.Parameter(torch.empty(heads))
        self.add_decay(H)
        self.A_log_atk = nn.Parameter(torch.empty(heads))
        self.dt_bias_atk = nn.Parameter(torch.empty(heads))
        if use_short_conv:
            self.add_convolutions(conv_size, bias=conv_bias)
        self.add_output(norm_eps, gate="swish" if use_gate else None)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        q, k, v, new = self.project(x, mask, state)
        a, a_atk = few(x, self.a_proj.weight), few(x, self.a_atk_proj.weight)
        g, g_atk = log_decay(a, self.A_log, self.dt_bias), log_decay(a_atk, self.A_log_atk, self.dt_bias_atk)
        beta, beta_atk = self.beta(x), few(x, self.b_atk_proj.weight).sigmoid()
        beta, g, beta_atk, g_atk = (zero_padding(z, mask)[..., None] for z in (beta, g, beta_atk, g_atk))
        A = self._curvature(k.transpose(1, 2), beta_atk, g_atk, None if state is None else state["A"])
        write = self._factor(A).transpose(1, 2) * k
        q, k, write = (repeat(z, self.value_heads) for z in (q, k, write))
        write, g = beta.transpose(1, 2) * write, g.transpose(1, 2).expand_as(k)
        erase = g.exp() * k  # dplr erases what the state holds before it decays
        o, new["S"] = dplr(q, write, v, erase, -write, g, None if state is None else state["S"])
        return self.read(o, x), None if state is None else new | {"A": A[:, -1]}

    @in_fp32
    def _curvature(
        self,
        k: Float[Tensor, "B T H K"],
        beta: Float[Tensor, "B T H 1"],
        log_decay: Float[Tensor, "B T H 1"],
        A: Float[Tensor, "B H K"] | None,
    ) -> Float[Tensor, "B T H K"]:
        """A behind every step."""
        return scan(log_decay.exp().expand_as(k), beta * k.square(), A)

    @in_fp32
    def _factor(self, A: Float[Tensor, "B T H K"]) -> Float[Tensor, "B T H K"]:
        """m, between 1/z and z."""
        r = (A + self.squash_eps).log() - self.log_atk_scale[:, None]
        return (-math.log(self.squash_x) * r / (1 + r.abs())).exp()

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        A = zeros_fp32(batch, self.heads, self.K, device=device, dtype=dtype)
        return super().init_state(batch, device=device, dtype=dtype) | {"A": A}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """c = `log_atk_scale_init`, for both decays see `decay_`; the rest as DeltaNet."""
        super().reset_parameters(layer=layer, depth=depth)
        decay_(self.A_log, self.dt_bias)
        decay_(self.A_log_atk, self.dt_bias_atk)
        nn.init.constant_(self.log_atk_scale, self.log_atk_scale_init)
