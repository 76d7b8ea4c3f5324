"""The gated state space layer (Mehta et al. 2022, arXiv:2206.13947, section 3.2).

    u = φ(x W_u) ∈ ℝ^F,    v = φ(x W_v) ∈ ℝ^H,    y = DSS(v),    out = (y W_g ⊙ u) W_o + b,    φ = GELU

The state space is run on H < width features, the gate multiplies F > width. DSS is the paper's simplified kernel: no
softmax, no Δ, no HiPPO, one Λ of N modes for all H features, all of it drawn at random (section 3.2, figure 1b):

    w = LayerNorm(v),    y_t = Σ_s K_s ⊙ w_{t−s} + D ⊙ w_t,    K_l = Re Σ_n C_n (e^{λ_n} − 1)/λ_n e^{λ_n l}
    λ = −e^{Lambda_real} + i e^{Lambda_imag}

A sum of exponentials is a recurrence: x_t = e^λ x_{t−1} + w_t for every feature, from which any length continues.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, State, Traits
from zoo.layers.linear import Linear, branch_
from zoo.layers.norms import LayerNorm
from zoo.layers.ranges import at_least_one, hidden_units
from zoo.layers.tensors import align_right, in_fp32, zero_padding, zeros_fp32
from zoo.ops.long_convolution import convolve


@register(
    family="state spaces and long convolutions",
    paper="Mehta et al. 2022, Long Range Language Modeling via Gated State Spaces, arXiv:2206.13947",
    source="https://github.com/lucidrains/gated-state-spaces-pytorch (gss.py, after the paper's pseudocode)",
    deviations=(
        "the paper's simplified DSS: no softmax over time, no Δ, Λ and C drawn from N(0, 1) (not DSS's own recipe)",
        "a quarter of the width in the state space, the paper's 256 of 1024; the second source has 256 for any width",
        "projections start N(0, 1/fan_in), the last scaled by 1/√(2·depth); the second source has PyTorch's default",
        "pure GSS: no blocks of local attention between (the paper's hybrid)",
    ),
    channel=None,
)
class GSS(Mixer):
    """GSS: a gated unit whose narrow branch is a diagonal state-space model, run as a long convolution.

    State: `x` (B, H, N, 2), real and imaginary parts, in float32 at least.

    Args:
        expand: F / width. d_hidden: H, a quarter of the width by default. d_state: N.
        imag_exp: Im λ = e^{Lambda_imag} (the paper's), or Lambda_imag itself.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(
        self,
        context: LayerContext,
        *,
        expand: float = 4.0,
        d_hidden: int | None = None,
        d_state: int = 512,
        imag_exp: bool = True,
    ) -> None:
        super().__init__(context)
        E, F_ = context.width, hidden_units("gss", expand, context)
        H = max(1, E // 4) if d_hidden is None else d_hidden
        at_least_one("gss", d_hidden=H, d_state=d_state)
        self.to_u = nn.Linear(E, F_, bias=False)
        self.to_v = nn.Linear(E, H, bias=False)
        self.dss = DSS(H, d_state, imag_exp=imag_exp)
        self.to_gate = nn.Linear(H, F_, bias=False)
        self.to_out = Linear(F_, E)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        u, v = F.gelu(self.to_u(x)), F.gelu(self.to_v(x))
        y, new = self.dss(v, mask, state)
        return self.to_out(self.to_gate(y.to(v.dtype)) * u), new

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {"x": zeros_fp32(batch, *self.dss.C_real.shape, 2, device=device, dtype=dtype)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """The state space standard normal; for the projections see `branch_`."""
        self.dss.reset_parameters()
        branch_(self.to_u, self.to_v, self.to_gate, out=self.to_out, depth=depth)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """No weight decay on the state space."""
        return {f"dss.{name}": ParamOverride(decay=False) for name in SYSTEM}


SYSTEM = ("Lambda_real", "Lambda_imag", "C_real", "C_imag", "param_D")


class DSS(nn.Module):
    """The simplified diagonal state space over `dim` features that share N modes, with its LayerNorm."""

    def __init__(self, dim: int, N: int, *, imag_exp: bool = True) -> None:
        super().__init__()
        self.imag_exp = imag_exp
        self.norm = LayerNorm(dim)
        self.Lambda_real, self.Lambda_imag = (nn.Parameter(torch.empty(N)) for _ in range(2))
        self.C_real, self.C_imag = (nn.Parameter(torch.empty(dim, N)) for _ in range(2))
        self.param_D = nn.Parameter(torch.empty(dim))

    def reset_parameters(self) -> None:
        for name in SYSTEM:
            nn.init.normal_(getattr(self, name))
        self.norm.reset_parameters()

    @in_fp32
    def forward(
        self, v: Float[Tensor, "B T H"], mask: Mask | None = None, state: State | None = None
    ) -> tuple[Float[Tensor, "B T H"], State | None]:
        """y in float32 at least and, from a state, the next."""
        w, Lambda = zero_padding(self.norm(v), mask), self.eigenvalues()
        C = torch.complex(self.C_real, self.C_imag) * torch.expm1(Lambda) / Lambda
        if state is None:
            y, new = convolve(w, _evaluate(C, _powers(Lambda, w.shape[1]))), None
        else:
            y, new = self._resume(w, mask, state, Lambda, C)
        return y + self.param_D * w, new

    @in_fp32
    def eigenvalues(self) -> Complex[Tensor, " N"]:
        """λ, with a negative real part."""
        imag = self.Lambda_imag.exp() if self.imag_exp else self.Lambda_imag
        return torch.complex(-self.Lambda_real.exp(), imag)

    @staticmethod
    def _resume(w: Tensor, mask: Mask | None, state: State, Lambda: Tensor, C: Tensor) -> tuple[Tensor, State]:
        """The convolution, plus what the initial state x_0 still says: y_t += Re(C e^{λ(t+1)} x_0)."""
        T, x0, a = w.shape[1], torch.view_as_complex(state["x"].contiguous()), torch.exp(Lambda)
        if T == 1:
            x = a * x0 + w[:, 0, :, None]
            y = (C * x).real.sum(-1)[:, None]
            x = x if mask is None else torch.where(mask[:, :, None], x, x0)
            return y, {"x": torch.view_as_real(x)}
        powers = _powers(Lambda, T)
        y = convolve(w, _evaluate(C, powers)) + _evaluate(C * a * x0, powers).transpose(1, 2)
        w, n = align_right(w, mask)
        back = powers.flip(1).T  # (T, N)
        left = w.transpose(1, 2)
        x = torch.exp(n[:, None, None] * Lambda) * x0 + torch.complex(left @ back.real, left @ back.imag)
        return y, {"x": torch.view_as_real(x)}


def _powers(Lambda: Complex[Tensor, " N"], T: int) -> Complex[Tensor, "N T"]:
    """e^{λ l} for l < T, by real functions, which torch vectorises."""
    z = Lambda[:, None] * torch.arange(T, device=Lambda.device)
    return torch.polar(z.real.exp(), z.imag)


def _evaluate(c: Complex[Tensor, "*B H N"], powers: Complex[Tensor, "N T"]) -> Float[Tensor, "*B H T"]:
    """Re Σ_n c_n e^{λ_n l}."""
    return c.real @ powers.real - c.imag @ powers.imag
