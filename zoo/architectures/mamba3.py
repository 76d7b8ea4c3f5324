"""Mamba-3 (Lahoti et al. 2026, arXiv:2603.15569, section 3): Mamba-2 without a convolution, whose state turns.

    z, x, B, C, Δ', a, λ', φ = u W_in,    Δ = softplus(Δ' + b_Δ),    α_t = e^{−Δ_t softplus(a_t)},    λ = σ(λ')
    θ_t = θ_{t−1} + π Δ_t tanh(φ_t),    k_t = R(θ_t) (RMSNorm(B_t) + b_B),    q_t = R(θ_t) (RMSNorm(C_t) + b_C)
    S_t = α_t (S_{t−1} + (1 − λ_t) Δ_t k_{t−1} x_{t−1}ᵀ) + λ_t Δ_t k_t x_tᵀ
    out = ((S_tᵀ q_t + D x_t) ⊙ SiLU(z_t)) W_out

per head, with one B and C for a group of heads and a bias of both for each; R(θ) turns pairs of channels, as a complex
state would. The input counts at both ends of a step (the exponential-trapezoidal rule); λ = 1 is Mamba-2's rule. What a
step writes counts from the next on in full, so with S⁻ the state but for the last input it is linear attention:

    S⁻_t = α_t (S⁻_{t−1} + (λ_{t−1} Δ_{t−1} + (1 − λ_t) Δ_t) k_{t−1} x_{t−1}ᵀ),    S_t = S⁻_t + λ_t Δ_t k_t x_tᵀ

With `is_mimo` a head has R keys and queries at each step, and x, z and y once for each, scaled by learned vectors
(section 3.3): S adds the R products up.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.architectures.mamba import start_projections
from zoo.architectures.mamba2 import GatedRMSNorm
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, Part, State, Traits
from zoo.layers.linear import softplus_bias_
from zoo.layers.norms import RMSNorm
from zoo.layers.qkv import Turn, turn
from zoo.layers.ranges import at_least_one, check_step_sizes, head_near, positive
from zoo.layers.tensors import in_fp32, merge_heads, split_heads, take_steps, zero_padding, zeros_fp32
from zoo.ops.linear_attention import linear_attention
from zoo.ops.linear_attention.naive import repeat


@register(
    family="state spaces and long convolutions",
    paper="Lahoti et al. 2026, Mamba-3: Improved Sequence Modeling using State Space Principles, arXiv:2603.15569",
    source="https://github.com/state-spaces/mamba (mamba_ssm/modules/mamba3.py); flash-linear-attention, "
    "fla/layers/mamba3.py",
    deviations=(
        "d_state is 64, with which the paper matches Mamba-2's 128; the official default is 128",
        "headdim is 64, or where that does not divide the channels the divisor of them that is nearest in ratio",
        "A = −softplus(a), as in the paper and in fla; state-spaces/mamba has had a function with heavier tails there "
        "since June 2026",
        "the past state and the present input are added up apart, where the official kernels add what the next step "
        "writes and take it off again: so no rounding of the future reaches the past",
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms_eps5",
)
class Mamba3(Mixer):
    """Mamba-3: a state space with the trapezoidal rule, rotations that depend on the input, and no convolution.

    State: `S` (B, heads, d_state, headdim) and `angle` (B, heads, angles) in float32 at least, the last key `k`
    (B, heads, R, d_state), turned, and the last input `x` (B, heads, headdim).

    Args:
        d_state: N. expand: channels inside, as a multiple of the width.
        headdim: P, channels per head. None: the divisor of the channels nearest 64.
        ngroups: groups of heads with B and C of their own.
        rope_fraction: the part of the N channels that turns, ½ or 1, from the front (in pairs i, i + N/2 with is_mimo).
        dt_min, dt_max, dt_init_floor: Δ starts log-uniform between the first two, and at the third at least.
        A_floor: −A is this at least.
        is_outproj_norm: RMSNorm over each head before the gate. norm_eps: ε of all norms.
        is_mimo, mimo_rank: R keys, queries, inputs and outputs for each head and step.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    feeds_matmul_only = True
    mimo_o: nn.Parameter

    def __init__(
        self,
        context: LayerContext,
        *,
        d_state: int = 64,
        expand: int = 2,
        headdim: int | None = None,
        ngroups: int = 1,
        rope_fraction: float = 0.5,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_init_floor: float = 1e-4,
        A_floor: float = 1e-4,
        is_outproj_norm: bool = False,
        norm_eps: float = 1e-5,
        is_mimo: bool = False,
        mimo_rank: int = 4,
    ) -> None:
        super().__init__(context)
        inner = expand * context.width
        P = head_near(inner) if headdim is None else headdim
        at_least_one("mamba3", d_state=d_state, expand=expand, headdim=headdim, ngroups=ngroups, mimo_rank=mimo_rank)
        if inner % P:
            raise ValueError(f"mamba3: {inner} channels do not divide into heads of {P} (headdim)")
        self.heads = H = inner // P
        if H % ngroups:
            raise ValueError(f"mamba3: {H} heads do not divide into {ngroups} groups (ngroups)")
        if rope_fraction not in (0.5, 1.0) or rope_fraction * d_state < 2:
            raise ValueError(
                f"mamba3: rope_fraction is ½ or 1 and leaves 2 channels to turn, got {rope_fraction:g} of {d_state}"
            )
        if is_mimo and d_state % 2:
            raise ValueError(f"mamba3: with is_mimo d_state must be even (channel i turns with i + N/2), got {d_state}")
        check_step_sizes("mamba3", dt_min, dt_max)
        positive("mamba3", dt_init_floor=dt_init_floor, A_floor=A_floor, norm_eps=norm_eps)
        self.headdim, self.d_state, self.ngroups = P, d_state, ngroups
        self.dt_min, self.dt_max, self.dt_init_floor, self.A_floor = dt_min, dt_max, dt_init_floor, A_floor
        self.is_mimo, self.rank = is_mimo, mimo_rank if is_mimo else 1
        self.angles = int(rope_fraction * d_state) // 2
        keys = self.rank * ngroups * d_state
        self.sizes = [inner, inner, keys, keys, H, H, H, self.angles]
        self.in_proj = nn.Linear(context.width, sum(self.sizes), bias=False)
        self.dt_bias = nn.Parameter(torch.empty(H))
        self.B_bias = nn.Parameter(torch.empty(H, self.rank, d_state))
        self.C_bias = nn.Parameter(torch.empty(H, self.rank, d_state))
        self.B_norm = RMSNorm(d_state, eps=norm_eps)
        self.C_norm = RMSNorm(d_state, eps=norm_eps)
        if is_mimo:
            for name in ("mimo_x", "mimo_z", "mimo_o"):
                self.register_parameter(name, nn.Parameter(torch.empty(H, self.rank, P)))
        self.D = nn.Parameter(torch.empty(H))
        self.norm = GatedRMSNorm(inner, groups=H, before_gate=True, eps=norm_eps) if is_outproj_norm else None
        self.out_proj = nn.Linear(inner, context.width, bias=False)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    @classmethod
    def width_multiple(cls, *, headdim: int | None, ngroups: int, expand: int, **_: Any) -> int:
        inner = (headdim or 1) * ngroups  # what expand · width must be a multiple of
        return inner // math.gcd(inner, expand) if inner > 0 and expand > 0 else 1

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        z, x, B, C, dt, a, trap, angle = self.in_proj(zero_padding(x, mask)).split(self.sizes, dim=-1)
        z, x = split_heads(z, self.heads), split_heads(x, self.heads)
        start: State = {} if state is None else state
        log_decay, carried, written, theta = self._steps(dt, a, trap, angle, mask, start.get("angle"))
        k, q = self._turned(B, self.B_norm, self.B_bias, theta), self._turned(C, self.C_norm, self.C_bias, theta)
        v, past = self._scaled("mimo_x", x), (carried * log_decay.exp())[..., None, None]
        k_past, x_past = _behind(start.get("k"), k[:, :, :-1]), _behind(start.get("x"), x[:, :, :-1])
        v_past = (past * self._scaled("mimo_x", x_past)).to(v.dtype)
        decays = F.pad(log_decay[..., None], (0, self.rank - 1)).flatten(2)  # of R rows the first forgets
        q_rows, k_rows, v_rows = (ranked.flatten(2, 3) for ranked in (q, k_past, v_past))
        y, S = linear_attention(q_rows, k_rows, v_rows, decays, start.get("S"))
        y = y.unflatten(2, (-1, self.rank)) + _read(q, k, v, written) + self.D[:, None, None, None] * v
        if self.rank > 1:  # a query sees the past of its own rank and those before, and this is the rest
            y = y + _read(q, k_past, v_past, torch.ones(self.rank, self.rank, device=y.device).triu(1))
        out = self.out_proj(self._gated(y, z).to(z.dtype))
        if state is None:
            return out, None
        S = S + ((written[:, :, -1, None, None] * k[:, :, -1])[..., None] * v[:, :, -1, :, None]).sum(2)
        n = torch.full((len(x), 1), x.shape[2], device=x.device) if mask is None else mask.sum(1, keepdim=True)
        last = {name: take_steps(_behind(state[name], line).flatten(3), n) for name, line in (("k", k), ("x", x))}
        new = {"S": S, "angle": theta[:, :, -1].remainder(2 * math.pi), **last}
        return out, {name: new[name].reshape(state[name].shape).to(state[name].dtype) for name in state}

    @in_fp32
    def _steps(
        self,
        dt: Float[Tensor, "B T H"],
        a: Float[Tensor, "B T H"],
        trap: Float[Tensor, "B T H"],
        angle: Float[Tensor, "B T n"],
        mask: Mask | None,
        start: Float[Tensor, "B H n"] | None,
    ) -> tuple[Float[Tensor, "B H T"], Float[Tensor, "B H T"], Float[Tensor, "B H T"], Float[Tensor, "B H T n"]]:
        """ln α_t; λ_{t−1} Δ_{t−1} + (1 − λ_t) Δ_t and λ_t Δ_t, the weights of the last input and of this one; θ_t.

        The state holds its last input already by λ Δ. A masked step has Δ = 0.
        """
        delta = zero_padding(F.softplus(dt + self.dt_bias), mask).transpose(1, 2)
        lam, A = trap.sigmoid().transpose(1, 2), -F.softplus(a).clamp(min=self.A_floor).transpose(1, 2)
        theta = (math.pi * angle.tanh()[:, None] * delta[..., None]).cumsum(2)
        theta = theta if start is None else theta + start[:, :, None]
        return A * delta, F.pad(lam * delta, (1, -1)) + (1 - lam) * delta, lam * delta, theta

    def _turned(
        self, x: Float[Tensor, "B T _"], norm: RMSNorm, bias: Float[Tensor, "H R N"], theta: Float[Tensor, "B H T n"]
    ) -> Float[Tensor, "B H T R N"]:
        """Keys or queries by head: normed, their bias added, and turned."""
        x = norm(x.unflatten(-1, (self.rank, self.ngroups, self.d_state))).permute(0, 3, 2, 1, 4)
        x = repeat(x, self.heads) + bias[:, :, None]
        if self.is_mimo:
            theta = F.pad(theta, (0, self.d_state // 2 - self.angles))
        theta = theta.flatten(0, 1)
        by = Turn(theta.cos(), theta.sin(), "half" if self.is_mimo else "interleaved")
        return turn(x.flatten(0, 1), by).unflatten(0, x.shape[:2]).transpose(2, 3)

    def _scaled(self, name: str, x: Float[Tensor, "B H T P"]) -> Float[Tensor, "B H T R P"]:
        """x once for each rank, times that parameter if there are several."""
        return x[:, :, :, None] * getattr(self, name)[:, None] if self.is_mimo else x[:, :, :, None]

    def _gated(self, y: Float[Tensor, "B H T R P"], z: Float[Tensor, "B H T P"]) -> Float[Tensor, "B T _"]:
        """y ⊙ SiLU(z), or RMSNorm(y) ⊙ SiLU(z), the ranks added up."""
        z = self._scaled("mimo_z", z)
        if self.norm is None:
            y = y * F.silu(z)
        else:
            y, z = (ranked.permute(0, 2, 3, 1, 4).flatten(3) for ranked in (y, z))
            y = self.norm(y, z).unflatten(-1, (self.heads, -1)).permute(0, 3, 1, 2, 4)
        return merge_heads((y * self.mimo_o[:, None]).sum(3) if self.is_mimo else y[:, :, :, 0])

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        H, N, P = self.heads, self.d_state, self.headdim
        return {
            "S": zeros_fp32(batch, H, N, P, device=device, dtype=dtype),
            "angle": zeros_fp32(batch, H, self.angles, device=device, dtype=dtype),
            "k": torch.zeros(batch, H, self.rank, N, device=device, dtype=dtype),
            "x": torch.zeros(batch, H, P, device=device, dtype=dtype),
        }

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """Δ log-uniform; biases, norms, D and mimo_z 1, mimo_x and mimo_o 1/R. The matrices keep PyTorch's start; W_out
        is scaled by 1/√(2·depth)."""
        softplus_bias_(self.dt_bias, self.dt_min, self.dt_max, self.dt_init_floor)
        for name, parameter in self.named_parameters():
            if name in ("mimo_x", "mimo_o"):
                nn.init.constant_(parameter, 1 / self.rank)
            elif name not in ("dt_bias", "in_proj.weight", "out_proj.weight"):
                nn.init.ones_(parameter)
        start_projections(self.in_proj, self.out_proj, 2 * depth)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """No weight decay on D and the bias that sets Δ."""
        return dict.fromkeys(("D", "dt_bias"), ParamOverride(decay=False))


def _behind(last: Float[Tensor, "B H *F"] | None, x: Float[Tensor, "B H T *F"]) -> Float[Tensor, "B H T+1 *F"]:
    """x behind what came last; behind zeros where there is no past."""
    before = x.new_zeros(*x.shape[:2], *x.shape[3:]) if last is None else last.to(x.dtype)
    return torch.cat([before[:, :, None], x], dim=2)


def _read(
    q: Float[Tensor, "B H T R N"],
    k: Float[Tensor, "B H T R N"],
    v: Float[Tensor, "B H T R P"],
    weight: Float[Tensor, "B H T"] | Float[Tensor, "R R"],
) -> Float[Tensor, "B H T R P"]:
    """Σ_s weight (q_r · k_s) v_s over the ranks s of each step."""
    pairs = weight[..., None, None] if weight.ndim == 3 else weight
    pairs = pairs * (q[:, :, :, :, None] * k[:, :, :, None]).sum(-1)
    return (pairs[..., None].to(v.dtype) * v[:, :, :, None]).sum(-2)
