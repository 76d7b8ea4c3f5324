"""Log-linear Mamba-2: Mamba-2 that keeps its past in log T states (Guo et al. 2025, arXiv:2506.04761, section 3.4).

    z, (x, B, C), Δ', δ = u W_in,    x, B, C ← SiLU(conv(x, B, C)),    Δ = softplus(Δ' + b_Δ),    λ = softplus(L ⊙ δ)
    o_t = Σ_{s ≤ t} λ_t[lev(t, s)] e^{(Δ_{s+1} + ⋯ + Δ_t) A} (C_t·B_s) Δ_s x_s
    y = RMSNorm((o + D x) ⊙ SiLU(z)) W_out

with one A = −e^{A_log}, Δ and D per head, and B, C shared by the heads of a group. lev(t, t) = 0, and else the position
of the highest bit in which t and s differ: a step sees the past in blocks of 1, 2, 4, … steps, larger the longer ago,
each with a weight of its own. With λ = 1 it is Mamba-2.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.architectures.mamba2 import GatedRMSNorm
from zoo.contract import LayerContext, Mask, Mixed, Mixer, Part, State, Traits
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH
from zoo.layers.linear import branch_, softplus_bias_
from zoo.layers.ranges import at_least_one, head_near, positive
from zoo.layers.short_convolution import ShortConvolution
from zoo.layers.tensors import in_fp32, merge_heads, split_heads, zero_padding, zeros_fp32
from zoo.ops.log_linear_attention import levels_of, log_linear_attention


@register(
    family="state spaces and long convolutions",
    paper="Guo et al. 2025, Log-Linear Attention, arXiv:2506.04761",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/log_linear_mamba2.py, "
    "fla/models/log_linear_mamba2)",
    deviations=(
        "as many levels as the longest sequence has, where the official code has 15, for 16,384 steps; in a longer one "
        "the highest level has all that is older",
        "head_dim is 64, or where that does not divide the channels the divisor of them that is nearest in ratio",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
        "the convolution keeps PyTorch's initial values, as the official layer does; the official model has N(0, 0.02)",
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms_eps5",
)
class LogLinearMamba2(Mixer):
    """Log-linear Mamba-2: a state space with a state for each level of a binary tree over the past, each weighed.

    State: the last inputs `conv` (B, channels, conv_kernel − 1), the states `S` (B, heads, levels − 1, state_size,
    head_dim) in float32 at least, and how many `steps` (B) they are of.

    Args:
        state_size: N. expand: channels inside, as a multiple of the width. n_groups: groups of heads with B and C.
        head_dim: channels per head; None for the divisor of them nearest 64.
        levels: of λ; None for as many as the longest sequence has.
        conv_kernel: the width of the convolution. use_conv_bias, use_bias: of it, and of both projections.
        norm_eps: ε of the norm.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    feeds_matmul_only = True

    def __init__(
        self,
        context: LayerContext,
        *,
        state_size: int = 128,
        expand: int = 2,
        n_groups: int = 1,
        head_dim: int | None = None,
        levels: int | None = None,
        conv_kernel: int = 4,
        use_conv_bias: bool = True,
        use_bias: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__(context)
        name = "log_linear_mamba2"
        at_least_one(name, state_size=state_size, expand=expand, n_groups=n_groups, head_dim=head_dim)
        at_least_one(name, conv_kernel=conv_kernel)
        positive(name, norm_eps=norm_eps)
        if levels is not None and levels < 2:
            raise ValueError(f"{name}: levels must be at least 2, of the present step and of the past, got {levels}")
        inner = expand * context.width
        self.head_dim = head_near(inner) if head_dim is None else head_dim
        if inner % (self.head_dim * n_groups):
            raise ValueError(f"{name}: {inner} channels do not divide into {n_groups} groups of heads of {head_dim}")
        self.heads, self.groups, self.state_size = inner // self.head_dim, n_groups, state_size
        self.levels = levels_of(context.length) if levels is None else levels
        channels = inner + 2 * n_groups * state_size
        self.sizes = [inner, channels, self.heads, self.heads * self.levels]
        self.in_proj = nn.Linear(context.width, sum(self.sizes), bias=use_bias)
        self.conv1d = ShortConvolution(channels, conv_kernel, bias=use_conv_bias)
        self.dt_bias = nn.Parameter(torch.empty(self.heads))
        self.A_log = nn.Parameter(torch.empty(self.heads))
        self.L = nn.Parameter(torch.empty(self.heads, self.levels))
        self.D = nn.Parameter(torch.empty(self.heads))
        self.norm = GatedRMSNorm(inner, groups=n_groups, before_gate=False, eps=norm_eps)
        self.out_proj = nn.Linear(inner, context.width, bias=use_bias)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    @classmethod
    def width_multiple(cls, *, head_dim: int | None, n_groups: int, expand: int, **_: Any) -> int:
        inner = (head_dim or 1) * n_groups  # what expand · width must be a multiple of
        return inner // math.gcd(inner, expand) if inner > 0 and expand > 0 else 1

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        z, xBC, dt, dl = self.in_proj(x).split(self.sizes, dim=-1)
        before = None if state is None else state["conv"]
        xBC, last = self.conv1d(xBC, mask=mask, state=before, narrow=True)
        shared = self.groups * self.state_size
        x, B, C = xBC.split([self.sizes[0], shared, shared], dim=-1)
        x, B, C = split_heads(x, self.heads), split_heads(B, self.groups), split_heads(C, self.groups)
        delta, log_decay, scales = self._rates(dt, dl)
        past = None if state is None else (state["S"], state["steps"])
        o, new = log_linear_attention(C, B, delta.to(x.dtype)[..., None] * x, log_decay, scales, past, mask)
        y = torch.addcmul(o, self.D[:, None, None].to(x.dtype), x)
        y = self.out_proj(self.norm(merge_heads(y), z).to(z.dtype))
        return y, None if new is None else {"conv": last, "S": new[0], "steps": new[1]}

    @in_fp32
    def _rates(
        self, dt: Float[Tensor, "B T H"], dl: Float[Tensor, "B T HL"]
    ) -> tuple[Float[Tensor, "B H T"], Float[Tensor, "B H T"], Float[Tensor, "B H T L"]]:
        """Δ, Δ A and λ."""
        delta = F.softplus(dt + self.dt_bias).transpose(1, 2)
        scales = F.softplus(self.L[:, None] * split_heads(dl, self.heads))
        return delta, -torch.exp(self.A_log)[:, None] * delta, scales

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        sizes = batch, self.heads, self.levels - 1, self.state_size, self.head_dim
        return {
            "conv": self.conv1d.init_state(batch, device=device, dtype=dtype),
            "S": zeros_fp32(*sizes, device=device, dtype=dtype),
            "steps": torch.zeros(batch, device=device, dtype=torch.long),
        }

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """−A = 1, 2, …, H; D = L = 1, Δ log-uniform in [1e-3, 1e-1]; W ~ N(0, 1/fan_in), W_out by 1/√(2·depth)."""
        branch_(self.in_proj, out=self.out_proj, depth=depth)
        self.A_log.copy_(torch.arange(1, self.heads + 1).log())
        softplus_bias_(self.dt_bias, 1e-3, 1e-1, floor=1e-4)
        for ones in (self.D, self.L, self.norm.weight):
            nn.init.ones_(ones)
        self.conv1d.reset_parameters()
