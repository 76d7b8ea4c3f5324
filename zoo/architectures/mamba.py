"""Mamba (Gu & Dao 2023, arXiv:2312.00752, section 3).

    u, z = x W_in,    u ← SiLU(conv(u)),    Δ', B, C = u W_x,    Δ = softplus(Δ' W_Δ + b_Δ)
    h_t = e^{Δ_t A} h_{t−1} + Δ_t B_t u_t,    y_t = C_t h_t + D u_t,    out = (y ⊙ SiLU(z)) W_out

with A = −e^{A_log}, and conv a short causal convolution of each channel. See `zoo.ops.selective_scan`.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, State, Traits
from zoo.layers.linear import softplus_bias_
from zoo.layers.norms import RMSNorm
from zoo.layers.ranges import at_least_one, check_step_sizes, positive
from zoo.layers.short_convolution import ShortConvolution
from zoo.layers.tensors import in_fp32, zero_padding, zeros_fp32
from zoo.ops.selective_scan import gated_selective_scan


@register(
    family="state spaces and long convolutions",
    paper="Gu & Dao 2023, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv:2312.00752",
    source="https://github.com/state-spaces/mamba (mamba_ssm/modules/mamba_simple.py, models/mixer_seq_simple.py)",
    deviations=(
        "the input enters by Euler's rule, ΔB, as in the official code; the paper's eq. 4 has the zero-order hold",
        "the output head is not tied to the token table, where the official language model ties them",
    ),
    channel=None,
    norm="rms_eps5",
    depth=8,
)
class Mamba(Mixer):
    """Mamba: a diagonal state-space model whose step size, input and output depend on the token, gated, no MLP.

    State: the last inputs `conv` (B, D·expand, d_conv − 1), and `h` (B, D·expand, d_state) in float32 at least.

    Args:
        d_state: N. d_conv: the width of the convolution. expand: channels inside, as a multiple of the width.
        dt_rank: the rank of Δ before W_Δ; `auto` is ⌈width / 16⌉.
        dt_min, dt_max: Δ starts log-uniform between them, dt_init_floor at the least.
        dt_init, dt_scale: W_Δ starts constant, or uniform, at (up to) dt_scale / √dt_rank.
        conv_bias, bias: whether the convolution has one, and the input and output projections.
        inner_norms: RMSNorm of what Δ, B and C are made of (Jamba, arXiv:2403.19887, section 6.4).
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    feeds_matmul_only = True

    def __init__(
        self,
        context: LayerContext,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2.0,
        dt_rank: int | Literal["auto"] = "auto",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_init: Literal["random", "constant"] = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        inner_norms: bool = False,
    ) -> None:
        super().__init__(context)
        inner = int(expand * context.width)
        rank = -(-context.width // 16) if dt_rank == "auto" else dt_rank
        at_least_one("mamba", d_state=d_state, d_conv=d_conv, dt_rank=rank, **{"expand · width": inner})
        positive("mamba", dt_scale=dt_scale, dt_init_floor=dt_init_floor)
        check_step_sizes("mamba", dt_min, dt_max)
        self.dt_rank, self.dt_min, self.dt_max = rank, dt_min, dt_max
        self.dt_init, self.dt_scale, self.dt_init_floor = dt_init, dt_scale, dt_init_floor
        self.in_proj = nn.Linear(context.width, 2 * inner, bias=bias)
        self.conv1d = ShortConvolution(inner, d_conv, bias=conv_bias)
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.inner_norms = inner_norms
        if inner_norms:
            self.dt_layernorm = RMSNorm(rank, eps=1e-6)
            self.b_layernorm, self.c_layernorm = RMSNorm(d_state, eps=1e-6), RMSNorm(d_state, eps=1e-6)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.empty(inner, d_state))
        self.D = nn.Parameter(torch.empty(inner))
        self.out_proj = nn.Linear(inner, context.width, bias=bias)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        u, z = self.in_proj(zero_padding(x, mask)).chunk(2, dim=-1)
        y, after = self.scan(u, z, mask, state)
        return self.out_proj(y), after

    def scan(
        self, u: Float[Tensor, "B T I"], z: Float[Tensor, "B T I"], mask: Mask | None, state: State | None
    ) -> tuple[Float[Tensor, "B T I"], State | None]:
        """y ⊙ SiLU(z) from what enters the convolution and the gate, and the next state."""
        u, last = self.conv1d(u, mask=mask, state=None if state is None else state["conv"], narrow=True)
        delta, B, C = self.select(u)
        delta = zero_padding(delta, mask, value=-math.inf)  # softplus(−∞) = 0: e^{0 A} = 1 keeps h, 0 B u adds nothing
        A, h = -in_fp32(torch.exp)(self.A_log), None if state is None else state["h"]
        y, h = gated_selective_scan(u, delta, A, B, C, self.D, z, self.dt_proj.bias, h)
        return y, None if state is None else {"conv": last, "h": h}

    def select(
        self, u: Float[Tensor, "B T I"]
    ) -> tuple[Float[Tensor, "B T I"], Float[Tensor, "B T N"], Float[Tensor, "B T N"]]:
        """What the input has to say in Δ (before its bias and softplus), B and C: what makes the state space selective
        (paper, algorithm 2)."""
        N = self.A_log.shape[1]
        low, B, C = self.x_proj(u).split([self.dt_rank, N, N], dim=-1)
        if self.inner_norms:
            low, B, C = self.dt_layernorm(low), self.b_layernorm(B), self.c_layernorm(C)
        return F.linear(low, self.dt_proj.weight), B, C

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        h = zeros_fp32(batch, *self.A_log.shape, device=device, dtype=dtype)
        return {"conv": self.conv1d.init_state(batch, device=device, dtype=dtype), "h": h}

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """A = −1 … −N in every channel and D = 1. Other matrices keep PyTorch's start; W_out is scaled by 1/√depth."""
        inner, N = self.A_log.shape
        self.A_log.copy_(torch.arange(1, N + 1, device=self.A_log.device).log().expand(inner, N))
        nn.init.ones_(self.D)
        limit = self.dt_scale * self.dt_rank**-0.5
        if self.dt_init == "random":
            nn.init.uniform_(self.dt_proj.weight, -limit, limit)
        else:
            nn.init.constant_(self.dt_proj.weight, limit)
        softplus_bias_(self.dt_proj.bias, self.dt_min, self.dt_max, self.dt_init_floor)
        self.conv1d.reset_parameters()
        self.x_proj.reset_parameters()
        for module in self.children():
            if isinstance(module, RMSNorm):
                module.reset_parameters()
        start_projections(self.in_proj, self.out_proj, depth)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """No weight decay on A, D and the bias that sets Δ."""
        return dict.fromkeys(("A_log", "D", "dt_proj.bias"), ParamOverride(decay=False))


@torch.no_grad()
def start_projections(into: nn.Linear, out: nn.Linear, depth: int) -> None:
    """PyTorch's start, the projection into the residual stream scaled by 1/√depth; biases zero (`_init_weights` in
    models/mixer_seq_simple.py)."""
    into.reset_parameters()
    out.reset_parameters()
    out.weight.mul_(depth**-0.5)
    for bias in (into.bias, out.bias):
        if bias is not None:
            nn.init.zeros_(bias)
