"""S4D, the diagonal state-space layer (Gu et al. 2022, arXiv:2206.11893; official: state-spaces/s4, models/s4/s4.py).

Every channel has a state x of N/2 complex modes, each standing for itself and its conjugate:

    x_t = Ā x_{t−1} + B̄ u_t,    y_t = 2 Re(C x_t) + D u_t,    out = GLU(W GELU(y) + b)

    zoh        Ā = e^{ΔA},                         B̄ = B (e^{ΔA} − 1) / A
    bilinear   Ā = (1 + ΔA/2) / (1 − ΔA/2),        B̄ = Δ B / (1 − ΔA/2)

Over a whole sequence y = K ∗ u + D u with K_l = 2 Re(C Ā^l B̄), a long convolution.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mixer, ParamOverride, State, Traits
from zoo.layers import hippo
from zoo.layers.linear import Linear
from zoo.ops import vandermonde
from zoo.ops.long_convolution import convolve
from zoo.ops.padding import align_right
from zoo.ops.precision import at_least_fp32, no_autocast

Init = Literal["lin", "inv", "legs", "real"]
Disc = Literal["zoh", "bilinear"]


class Discrete(NamedTuple):
    """The layer in discrete time, (H, N/2) each: log Ā, B̄ and C."""

    log_A: Complex[Tensor, "H M"]  # noqa: N815
    B: Complex[Tensor, "H M"]
    C: Complex[Tensor, "H M"]


def discretise(A: Tensor, B: Tensor, C: Tensor, dt: Tensor, disc: Disc) -> Discrete:
    """The system with a step size: its rows (H, N/2) by zero-order hold or the bilinear transform, as above.

    Multiplied by reciprocals, as torch divides complex numbers of a CPU one at a time.
    """
    if disc == "zoh":
        return Discrete(dt * A, B * torch.expm1(dt * A) * A.reciprocal(), C)
    half = 0.5 * dt * A
    inverse = (1 - half).reciprocal()
    return Discrete(torch.log((1 + half) * inverse), dt * B * inverse, C)


@register(
    family="state spaces and long convolutions",
    paper="Gu et al. 2022, On the Parameterization and Initialization of Diagonal State Space Models, arXiv:2206.11893",
    source="https://github.com/state-spaces/s4 (models/s4/s4.py, S4Block with SSMKernelDiag)",
    deviations=(
        "one Δ and one state per channel and no dropout inside the layer; LayerNorm stands before the layer",
        "one output per system (officially `channels`); Δ and A by exp only; no `dss` discretisation",
        "for both directions the framework sums two layers, where the official layer has a two-sided kernel",
        "for init=legs, B starts at the moduli of V*B (at most 2), as its phases are the eigensolver's whim",
        "parameters carry the names of models/s4/s4d.py (log_dt, log_A_real) and the sign of s4.py: Im A = -A_imag",
    ),
    channel=None,
)
class S4D(Mixer):
    """S4D: a diagonal linear state-space model per channel, run as a long convolution, then GELU and a GLU.

    State: `x` (B, D, N/2, 2), real and imaginary parts, in float32 at least.

    Args:
        d_state: N, even. init: `lin`, `inv`, `legs` or `real` (paper, section 4). disc: `zoh` or `bilinear`.
        n_ssm: how many different (A, B) the channels share; by default each has its own.
        dt_min, dt_max: Δ starts log-uniform between them.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(
        self,
        context: LayerContext,
        *,
        d_state: int = 64,
        init: Init = "lin",
        disc: Disc = "zoh",
        n_ssm: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ) -> None:
        super().__init__(context)
        if d_state < 2 or d_state % 2:
            raise ValueError(f"s4d: d_state {d_state} must be even, modes come in conjugate pairs")
        if not 0 < dt_min <= dt_max:
            raise ValueError(f"s4d: need 0 < dt_min <= dt_max, got {dt_min} and {dt_max}")
        H, M, S = context.width, d_state // 2, context.width if n_ssm is None else n_ssm
        if S < 1 or H % S:
            raise ValueError(f"s4d: width {H} does not divide into n_ssm {S} systems")
        self.d_state, self.init, self.disc, self.dt_min, self.dt_max = d_state, init, disc, dt_min, dt_max
        self.log_dt = nn.Parameter(torch.empty(H, 1))
        self.log_A_real = nn.Parameter(torch.empty(S, M))
        self.A_imag = nn.Parameter(torch.empty(S, M))
        self.B = nn.Parameter(torch.empty(S, M, 2))
        self.C = nn.Parameter(torch.empty(H, M, 2))
        self.D = nn.Parameter(torch.empty(H))
        self.output = Linear(H, 2 * H)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    @classmethod
    def width_multiple(cls, *, n_ssm: int | None, **_: Any) -> int:
        return max(1, n_ssm or 1)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        with no_autocast(x.device):
            u = at_least_fp32(x if mask is None else x.masked_fill(~mask[..., None], 0))
            system = self.discretise()
            if state is None:
                y, new = convolve(u, self.kernel(u.shape[1], system), at_least_fp32(self.D)), None
            else:
                y, new = self._resume(u, mask, state, system)
                y = y + at_least_fp32(self.D) * u
            y = F.gelu(y)
        return F.glu(self.output(y.to(x.dtype)), dim=-1), new

    def discretise(self) -> Discrete:
        """The system at step size Δ = e^{log_dt}, with A = −e^{log_A_real} − i A_imag (of h mod n_ssm)."""
        copies = len(self.C) // len(self.B)
        A = -torch.complex(at_least_fp32(self.log_A_real).exp(), at_least_fp32(self.A_imag)).repeat(copies, 1)
        B, C = (
            torch.view_as_complex(at_least_fp32(self.B)).repeat(copies, 1),
            torch.view_as_complex(at_least_fp32(self.C)),
        )
        dt = at_least_fp32(self.log_dt).exp()
        return discretise(A, B, C, dt, self.disc)

    def kernel(self, L: int, system: Discrete | None = None) -> Float[Tensor, "D L"]:
        """K_l = 2 Re(C Ā^l B̄) for l < L."""
        log_A, B, C = system or self.discretise()
        return vandermonde.evaluate((C * B)[None], log_A, L)[0]

    def _resume(self, u: Tensor, mask: Tensor | None, state: State, system: Discrete) -> tuple[Tensor, State]:
        """The convolution, plus what the initial state x_0 still says: y_t += 2 Re(C Ā^{t+1} x_0)."""
        T, (log_A, B, C) = u.shape[1], system
        pairs = state["x"]
        x0, A = torch.view_as_complex(at_least_fp32(pairs)), torch.exp(log_A)
        if T == 1:
            x = A * x0 + B * u[:, 0, :, None]
            y = 2 * (C * x).real.sum(-1)[:, None]
            x = x if mask is None else torch.where(mask[:, :, None], x, x0)
        else:
            y = convolve(u, self.kernel(T, system))
            y = y + vandermonde.evaluate(C * A * x0, log_A, T).transpose(1, 2)
            x = self._last_state(u, mask, x0, system)
        return y, {"x": torch.view_as_real(x).to(pairs.dtype)}

    @staticmethod
    def _last_state(u: Tensor, mask: Tensor | None, x0: Tensor, system: Discrete) -> Complex[Tensor, "B D M"]:
        """Ā^n x_0 + Σ_{s<n} Ā^{n−1−s} B̄ u_s, with n the valid steps of each row."""
        log_A, B_bar, _ = system
        u, n = align_right(u, mask)
        return torch.exp(n[:, None, None] * log_A) * x0 + B_bar * vandermonde.accumulate(u, log_A)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {"x": at_least_fp32(torch.zeros(batch, *self.C.shape, device=device, dtype=dtype))}

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """A and B by `initial`, Δ log-uniform, C complex and D real standard normal; the output keeps PyTorch's."""
        re, im, B = (torch.from_numpy(value) for value in initial(self.init, self.d_state))
        self.log_dt.uniform_(math.log(self.dt_min), math.log(self.dt_max))
        self.log_A_real.copy_(torch.log(-re))
        self.A_imag.copy_(-im)
        self.B.copy_(torch.stack([B, torch.zeros_like(B)], dim=-1))
        nn.init.normal_(self.C, std=0.5**0.5)
        nn.init.normal_(self.D)
        self.output.reset_parameters()

    def param_overrides(self) -> dict[str, ParamOverride]:
        """A, B and Δ learn at 1e-3 at most; none of the system's parameters decays."""
        slow = dict.fromkeys(("log_dt", "log_A_real", "A_imag", "B"), ParamOverride(lr_max=1e-3, decay=False))
        return slow | dict.fromkeys(("C", "D"), ParamOverride(decay=False))


@cache
def initial(init: Init, N: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Re A, Im A ≤ 0 and B (real) of the N/2 modes, in float64 (paper, section 4; models/s4/s4.py, `dplr` and `nplr`).

    `legs` takes the spectrum of the normal part of HiPPO-LegS, A + P Pᵀ with P = √(n + 1/2). Its B = V* B_LegS has
    arbitrary phases, which a complex normal C absorbs: we keep the moduli, at most 2, where the official code lets the
    eigensolver choose and clips the imaginary part to ±2.

    Raises:
        ValueError: unknown `init`.
    """
    n = np.arange(N // 2, dtype=np.float64)
    one = np.ones_like(n)
    if init == "lin":
        return -0.5 * one, -math.pi * n, one
    if init == "inv":
        return -0.5 * one, -N / math.pi * (N / (2 * n + 1) - 1), one
    if init == "real":
        return -(n + 1), 0 * n, one
    if init == "legs":
        A, B, P = hippo.transition("legs", N)
        im, V = np.linalg.eigh(-1j * (A + P.T @ P + 0.5 * np.eye(N)))  # −½ I + skew: i·im are eigenvalues
        return -0.5 * one, im[: N // 2], np.minimum(np.abs(V.conj().T @ B)[: N // 2], 2.0)
    raise ValueError(f"s4d: unknown init {init!r}; known: inv, legs, lin, real")
