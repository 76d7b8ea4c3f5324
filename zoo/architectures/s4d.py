"""S4D, the diagonal state-space layer (Gu et al. 2022, arXiv:2206.11893, section 3).

Every channel has a state x of N/2 complex modes, each standing for itself and its conjugate:

    x_t = Ā x_{t−1} + B̄ u_t,    y_t = 2 Re(C x_t) + D u_t,    out = GLU(W GELU(y) + b)

with Ā and B̄ by zero-order hold or the bilinear transform, see `zoo.layers.diagonal`. Over a whole sequence it is a
long convolution, y = K ∗ u + D u with K_l = 2 Re(C Ā^l B̄).
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, State, Traits
from zoo.layers.diagonal import DiagonalSystem, Disc, Init, discretise, initial
from zoo.layers.linear import Linear, log_step_
from zoo.layers.ranges import check_step_sizes
from zoo.layers.tensors import in_fp32, zero_padding, zeros_fp32
from zoo.ops.long_convolution import convolve


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
        check_step_sizes("s4d", dt_min, dt_max)
        H, M, S = context.width, d_state // 2, context.width if n_ssm is None else n_ssm
        if S < 1 or H % S:
            raise ValueError(f"s4d: width {H} does not divide into n_ssm {S} systems")
        self.d_state, self.init, self.disc, self.dt_min, self.dt_max = d_state, init, disc, dt_min, dt_max
        self.log_dt = nn.Parameter(torch.empty(H, 1))
        self.log_A_real, self.A_imag = (nn.Parameter(torch.empty(S, M)) for _ in range(2))
        self.B = nn.Parameter(torch.empty(S, M, 2))
        self.C = nn.Parameter(torch.empty(H, M, 2))
        self.D = nn.Parameter(torch.empty(H))
        self.output = Linear(H, 2 * H)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    @classmethod
    def width_multiple(cls, *, n_ssm: int | None, **_: Any) -> int:
        return max(1, n_ssm or 1)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        y, new = self._system(zero_padding(x, mask), mask, state)
        return F.glu(self.output(F.gelu(y).to(x.dtype)), dim=-1), new

    @in_fp32
    def _system(self, u: Float[Tensor, "B T D"], mask: Mask | None, state: State | None) -> Mixed:
        """y: the convolution and, from a state, what x_0 still says."""
        system = self.discretise()
        if state is None:
            return convolve(u, system.kernel(u.shape[1]), self.D), None
        y, x = system.resume(u, torch.view_as_complex(state["x"].contiguous()), mask)
        return y + self.D * u, {"x": torch.view_as_real(x)}

    @in_fp32
    def discretise(self) -> DiagonalSystem:
        """The system at step size Δ = e^{log_dt}, with A = −e^{log_A_real} − i A_imag (of h mod n_ssm)."""
        copies = len(self.C) // len(self.B)
        A = -torch.complex(self.log_A_real.exp(), self.A_imag).repeat(copies, 1)
        B, C = torch.view_as_complex(self.B).repeat(copies, 1), torch.view_as_complex(self.C)
        return discretise(A, B, C, self.log_dt.exp(), self.disc)

    def kernel(self, L: int) -> Float[Tensor, "D L"]:
        """K_l for l < L."""
        return self.discretise().kernel(L)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {"x": zeros_fp32(batch, *self.C.shape, device=device, dtype=dtype)}

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """A and B by `initial`, Δ log-uniform, C complex and D real standard normal; the output keeps PyTorch's."""
        re, im, B = (torch.from_numpy(value) for value in initial(self.init, self.d_state))
        log_step_(self.log_dt, self.dt_min, self.dt_max)
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
