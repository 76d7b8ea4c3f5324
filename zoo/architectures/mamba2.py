"""Mamba-2 (Dao & Gu 2024, arXiv:2405.21060, section 7).

    z, (x, B, C), Δ' = u W_in,    x, B, C ← SiLU(conv(x, B, C)),    Δ = softplus(Δ' + b_Δ)
    S_t = e^{Δ_t A} S_{t−1} + B_t (Δ_t x_t)ᵀ,    y_t = S_tᵀ C_t + D x_t,    out = RMSNorm(y ⊙ SiLU(z)) W_out

with one A = −e^{A_log}, Δ and D per head, and B, C shared by the heads of a group: linear attention with queries C,
keys B, values Δ x and a scalar decay, which runs in chunks (section 6).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.architectures.mamba import start_projections
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, State, Traits
from zoo.layers.linear import softplus_bias_
from zoo.layers.ranges import at_least_one, check_step_sizes, head_near, positive
from zoo.layers.short_convolution import ShortConvolution
from zoo.layers.tensors import in_fp32, merge_heads, split_heads, zero_padding, zeros_fp32
from zoo.ops.linear_attention import linear_attention
from zoo.ops.norms import gated_rms, rms


@register(
    family="state spaces and long convolutions",
    paper="Dao & Gu 2024, Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State "
    "Space Duality, arXiv:2405.21060, section 7",
    source="https://github.com/state-spaces/mamba (mamba_ssm/modules/mamba2.py, mamba2_simple.py)",
    deviations=(
        "headdim is 64, or where that does not divide the channels the divisor of them that is nearest in ratio",
        "chunks are of 64 steps, not 256, which changes the speed only",
        "with several groups the gated norm is taken per group, as in Mamba2; norm_groups=1 is Mamba2Simple's",
        "no learnable initial state (an option of Mamba2Simple)",
        "the output head is not tied to the token table, where the official language model ties them",
    ),
    channel=None,
    norm="rms_eps5",
    depth=8,
)
class Mamba2(Mixer):
    """Mamba-2: a state space with one decay per head, as chunked linear attention, gated and normed, no MLP.

    State: the last inputs `conv` (B, channels, d_conv − 1), and `S` (B, heads, d_state, headdim) in float32 at least.

    Args:
        d_state: N. d_conv: the width of the convolution. expand: channels inside, as a multiple of the width.
        headdim: P, channels per head. None: the divisor of the channels nearest 64.
        ngroups: groups of heads with B and C of their own.
        d_ssm: channels that go through the state space, the others through a gated MLP. None: all.
        D_has_hdim: a D per channel, not per head. rmsnorm: whether the gated norm is there, or the gate alone.
        norm_before_gate: RMSNorm(y) ⊙ SiLU(z). norm_groups: groups it is taken over; None: ngroups (Mamba2Simple: 1).
        A_init_range: −A starts uniform in it. dt_min, dt_max, dt_init_floor: as in Mamba. dt_limit: Δ is clamped to it.
        conv_init: the convolution starts uniform within ± this. None: as PyTorch has it.
        conv_bias, bias: whether the convolution has one, and the input and output projections.
        chunk_size: steps per chunk; it changes the speed only.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    feeds_matmul_only = True

    def __init__(
        self,
        context: LayerContext,
        *,
        d_state: int = 128,
        d_conv: int = 4,
        expand: float = 2,
        headdim: int | None = None,
        ngroups: int = 1,
        d_ssm: int | None = None,
        D_has_hdim: bool = False,
        rmsnorm: bool = True,
        norm_before_gate: bool = False,
        norm_groups: int | None = None,
        A_init_range: tuple[float, float] = (1.0, 16.0),
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] | None = None,
        conv_init: float | None = None,
        conv_bias: bool = True,
        bias: bool = False,
        chunk_size: int = 64,
    ) -> None:
        super().__init__(context)
        positive("mamba2", expand=expand)
        inner = int(expand * context.width)
        d_ssm = inner if d_ssm is None else d_ssm
        headdim = head_near(d_ssm) if headdim is None else headdim
        norm_groups = ngroups if norm_groups is None else norm_groups
        at_least_one(
            "mamba2", d_state=d_state, d_conv=d_conv, headdim=headdim, d_ssm=d_ssm, **{"expand · width": inner}
        )
        at_least_one("mamba2", ngroups=ngroups, norm_groups=norm_groups, chunk_size=chunk_size)
        if d_ssm > inner:
            raise ValueError(f"mamba2: d_ssm {d_ssm} is more than the {inner} channels there are")
        if d_ssm % headdim:
            raise ValueError(f"mamba2: {d_ssm} channels do not divide into heads of {headdim}")
        H = d_ssm // headdim
        if H % ngroups or d_ssm % norm_groups:
            raise ValueError(
                f"mamba2: {H} heads do not divide into {ngroups} groups (ngroups), or {d_ssm} into {norm_groups} "
                "(norm_groups)"
            )
        if not 0 < A_init_range[0] <= A_init_range[1]:
            raise ValueError(f"mamba2: A_init_range must be positive and ascend, got {A_init_range}")
        check_step_sizes("mamba2", dt_min, dt_max)
        positive("mamba2", dt_init_floor=dt_init_floor, conv_init=conv_init)
        self.d_state, self.headdim, self.ngroups, self.chunk_size = d_state, headdim, ngroups, chunk_size
        self.A_init_range, self.dt_limit, self.conv_init = A_init_range, dt_limit, conv_init
        self.dt_min, self.dt_max, self.dt_init_floor = dt_min, dt_max, dt_init_floor
        channels, spare = d_ssm + 2 * ngroups * d_state, inner - d_ssm
        self.sizes = [spare, spare, d_ssm, channels, H]
        self.in_proj = nn.Linear(context.width, sum(self.sizes), bias=bias)
        self.conv1d = ShortConvolution(channels, d_conv, bias=conv_bias)
        self.dt_bias = nn.Parameter(torch.empty(H))
        self.A_log = nn.Parameter(torch.empty(H))
        self.D = nn.Parameter(torch.empty(d_ssm if D_has_hdim else H))
        self.norm = GatedRMSNorm(d_ssm, groups=norm_groups, before_gate=norm_before_gate) if rmsnorm else None
        self.out_proj = nn.Linear(inner, context.width, bias=bias)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    @classmethod
    def width_multiple(cls, *, headdim: int | None, ngroups: int, expand: float, **_: Any) -> int:
        inner = (headdim or 1) * ngroups  # what expand · width must be a multiple of
        return inner // math.gcd(inner, int(expand)) if inner > 0 and expand > 0 and expand == int(expand) else 1

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        z0, x0, z, xBC, dt = self.in_proj(x).split(self.sizes, dim=-1)
        before, S = (None, None) if state is None else (state["conv"], state["S"])
        xBC, last = self.conv1d(xBC, mask=mask, state=before, narrow=True)
        H, G, N = len(self.A_log), self.ngroups, self.d_state
        x, B, C = xBC.split([H * self.headdim, G * N, G * N], dim=-1)
        x, B, C = split_heads(x, H), split_heads(B, G), split_heads(C, G)
        D = self.D.view(H, -1).expand(H, self.headdim)
        delta, log_decay = self._steps(dt, mask)
        y, S = linear_attention(C, B, delta.to(x.dtype)[..., None] * x, log_decay, S, self.chunk_size)
        y = merge_heads(torch.addcmul(y, D[:, None].to(x.dtype), x))
        y = (y * F.silu(z) if self.norm is None else self.norm(y, z)).to(x0.dtype)
        if x0.shape[-1]:
            y = torch.cat([F.silu(z0) * x0, y], dim=-1)
        return self.out_proj(y), None if state is None else {"conv": last, "S": S}

    @in_fp32
    def _steps(
        self, dt: Float[Tensor, "B T H"], mask: Mask | None
    ) -> tuple[Float[Tensor, "B H T"], Float[Tensor, "B H T"]]:
        """Δ and Δ A, both 0 at masked steps."""
        delta = F.softplus(dt + self.dt_bias).transpose(1, 2)
        delta = zero_padding(delta if self.dt_limit is None else delta.clamp(*self.dt_limit), mask, 2)
        return delta, -torch.exp(self.A_log)[:, None] * delta

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        S = zeros_fp32(batch, len(self.A_log), self.d_state, self.headdim, device=device, dtype=dtype)
        return {"conv": self.conv1d.init_state(batch, device=device, dtype=dtype), "S": S}

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """−A uniform, D = 1, Δ log-uniform. The matrices keep PyTorch's start; W_out is scaled by 1/√depth."""
        self.A_log.uniform_(*self.A_init_range).log_()
        nn.init.ones_(self.D)
        softplus_bias_(self.dt_bias, self.dt_min, self.dt_max, self.dt_init_floor)
        self.conv1d.reset_parameters()
        if self.conv_init is not None:
            nn.init.uniform_(self.conv1d.weight, -self.conv_init, self.conv_init)
        if self.norm is not None:
            nn.init.ones_(self.norm.weight)
        start_projections(self.in_proj, self.out_proj, depth)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """No weight decay on A, D and the bias that sets Δ."""
        return dict.fromkeys(("A_log", "D", "dt_bias"), ParamOverride(decay=False))


class GatedRMSNorm(nn.Module):
    """w ⊙ RMSNorm(y ⊙ SiLU(z)) over groups of channels, or w ⊙ RMSNorm(y) ⊙ SiLU(z) with `before_gate`."""

    def __init__(self, width: int, *, groups: int, before_gate: bool, eps: float = 1e-5) -> None:
        super().__init__()
        self.groups, self.before_gate, self.eps = groups, before_gate, eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, y: Float[Tensor, "*N D"], z: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        if self.groups == 1:
            norm = rms if self.before_gate else gated_rms
            return norm(y, self.weight, self.eps, z)
        gate = F.silu(z)
        if self.before_gate:
            return self._normed(y).to(z.dtype) * gate
        return self._normed(y * gate).to(z.dtype)

    @in_fp32
    def _normed(self, y: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        y = y.unflatten(-1, (self.groups, -1))
        return F.rms_norm(y, y.shape[-1:], eps=self.eps).flatten(-2) * self.weight
