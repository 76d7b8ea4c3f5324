"""S5 (Smith et al. 2023, arXiv:2208.04933, section 3).

One system of P complex modes reads all H features at once and is run as a scan (section 3):

    x_t = Λ̄ x_{t−1} + B̄ u_t,    y_t = 2 Re(C̃ x_t) + D ⊙ u_t        (2 Re where conjugates are left out, else Re)

    zoh        Λ̄ = e^{ΔΛ},                         B̄ = Λ^{−1} (Λ̄ − 1) B̃
    bilinear   Λ̄ = (1 + ΔΛ/2) / (1 − ΔΛ/2),        B̄ = Δ B̃ / (1 − ΔΛ/2)

with a step size Δ = e^{log_step} for every mode. Λ starts as the spectrum of the normal part of HiPPO-LegS on each of
`blocks` diagonal blocks, B̃ = V* B and C̃ = C V for random B and C. Then, with g = GELU(y):

    half_glu1  g ⊙ σ(W₂ g)      half_glu2  y ⊙ σ(W₂ g)      full_glu  W₁ g ⊙ σ(W₂ g)      gelu  g

Looking both ways, the same states run backwards as well, read by a second C̃ (section 3.3).
"""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, State, Traits
from zoo.layers import hippo
from zoo.layers.diagonal import diagonal_recurrence
from zoo.layers.linear import flax_dense_, lecun_normal_, log_step_
from zoo.layers.ranges import check_step_sizes
from zoo.layers.tensors import in_fp32, reverse, zero_padding, zeros_fp32


@register(
    family="state spaces and long convolutions",
    paper="Smith et al. 2023, Simplified State Space Layers for Sequence Modeling, arXiv:2208.04933",
    source="https://github.com/lindermanlab/S5 (s5/ssm.py, s5/ssm_init.py, s5/layers.py)",
    deviations=(
        "LayerNorm before the layer, where the official experiments use batch normalisation; no dropout inside it",
        "two directions have C1 and C2 for every C_init (official, complex_normal: one C of twice the width)",
        "each conjugate pair's eigenvector has its first component positive; B̃ and C̃ absorb the phase",
        "blocks hold conjugate pairs also without conj_sym, so their size is even",
    ),
    channel=None,
)
class S5(Mixer):
    """S5: one diagonal state-space model over all features, run as a parallel scan, then GELU and a gate.

    State: `x` (B, P, 2), real and imaginary parts, in float32 at least.

    Args:
        d_state: states of the real system (P = d_state / 2 with conj_sym), in `blocks` blocks.
        conj_sym: keep one of each conjugate pair of modes. clip_eigs: keep Re Λ at −1e-4 at most.
        gelu: `tanh`, the approximation that is flax' default, or `erf`.
    """

    traits = Traits(causal="strict", bidirectional=True, resumable=True)

    def __init__(
        self,
        context: LayerContext,
        *,
        d_state: int = 256,
        blocks: int = 8,
        C_init: Literal["trunc_standard_normal", "lecun_normal", "complex_normal"] = "trunc_standard_normal",
        discretization: Literal["zoh", "bilinear"] = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        conj_sym: bool = True,
        clip_eigs: bool = False,
        activation: Literal["half_glu1", "half_glu2", "full_glu", "gelu"] = "half_glu1",
        gelu: Literal["tanh", "erf"] = "tanh",
    ) -> None:
        super().__init__(context)
        if blocks < 1 or d_state < 2 * blocks or d_state % (2 * blocks):
            raise ValueError(f"s5: d_state {d_state} does not divide into {blocks} blocks of conjugate pairs")
        check_step_sizes("s5", dt_min, dt_max)
        H, P = context.width, d_state // 2 if conj_sym else d_state
        self.d_state, self.blocks, self.conj_sym, self.clip_eigs = d_state, blocks, conj_sym, clip_eigs
        self.C_init, self.discretization, self.activation = C_init, discretization, activation
        self.dt_min, self.dt_max = dt_min, dt_max
        self.approximate = "tanh" if gelu == "tanh" else "none"
        self.Lambda_re, self.Lambda_im = nn.Parameter(torch.empty(P)), nn.Parameter(torch.empty(P))
        self.log_step = nn.Parameter(torch.empty(P, 1))
        self.B = nn.Parameter(torch.empty(P, H, 2))
        self.readers = ("C",) if context.causal else ("C1", "C2")
        for name in self.readers:
            self.register_parameter(name, nn.Parameter(torch.empty(H, P, 2)))
        self.D = nn.Parameter(torch.empty(H))
        self.out1 = nn.Linear(H, H) if activation == "full_glu" else None
        self.out2 = nn.Linear(H, H) if activation != "gelu" else None
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        y, new = self.system(x, mask, state)
        y, g = y.to(x.dtype), F.gelu(y, approximate=self.approximate).to(x.dtype)
        if self.out2 is not None:
            value = g if self.out1 is None else self.out1(g)
            g = (y if self.activation == "half_glu2" else value) * torch.sigmoid(self.out2(g))
        return g, new

    @in_fp32
    def system(self, u: Float[Tensor, "B T D"], mask: Mask | None = None, state: State | None = None) -> Mixed:
        """The state-space model alone: y, before the activation."""
        u, (Lambda, scale) = zero_padding(u, mask), self.discretise()
        Bu = scale * torch.complex(u @ self.B[..., 0].T, u @ self.B[..., 1].T)
        x0 = None if state is None else torch.view_as_complex(state["x"].contiguous())
        xs = diagonal_recurrence(Lambda, Bu, x0, mask)
        y = self._read(self.readers[0], xs) + self.D * u
        if len(self.readers) == 2:
            backwards = diagonal_recurrence(Lambda, reverse(Bu, mask), None, mask)
            y = y + self._read(self.readers[1], reverse(backwards, mask))
        return y, None if state is None else {"x": torch.view_as_real(xs[:, -1])}

    @in_fp32
    def discretise(self) -> tuple[Complex[Tensor, " P"], Complex[Tensor, " P"]]:
        """Λ̄, and what B̃ is multiplied by."""
        re = self.Lambda_re.clamp(max=-1e-4) if self.clip_eigs else self.Lambda_re
        Lambda, step = torch.complex(re, self.Lambda_im), self.log_step[:, 0].exp()
        if self.discretization == "zoh":
            return torch.exp(step * Lambda), torch.expm1(step * Lambda) / Lambda
        half = 0.5 * step * Lambda
        return (1 + half) / (1 - half), step / (1 - half)

    @in_fp32
    def _read(self, name: str, xs: Complex[Tensor, "B T P"]) -> Float[Tensor, "B T D"]:
        """Re(C̃ x), or 2 Re(C̃ x) where x stands for its conjugate too."""
        C = getattr(self, name)
        y = xs.real @ C[..., 0].T - xs.imag @ C[..., 1].T
        return 2 * y if self.conj_sym else y

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {"x": zeros_fp32(batch, len(self.B), 2, device=device, dtype=dtype)}

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """HiPPO blocks, B and C in its eigenbasis, Δ log-uniform, D ~ N(0, 1); dense layers as flax has them."""
        w, V = spectrum(self.d_state // self.blocks, self.conj_sym)
        H, N = len(self.D), self.d_state
        self.Lambda_re.copy_(torch.from_numpy(np.tile(w.real, self.blocks)))
        self.Lambda_im.copy_(torch.from_numpy(np.tile(w.imag, self.blocks)))
        log_step_(self.log_step, self.dt_min, self.dt_max)
        basis = torch.from_numpy(V).to(self.B.device, torch.complex64)  # (N / blocks, P / blocks)
        B = lecun_normal_(torch.empty(N, H, device=self.B.device), N).view(self.blocks, -1, H)
        self.B.copy_(torch.view_as_real(basis.mH @ B.to(basis.dtype)).flatten(0, 1))
        for name in self.readers:
            C = getattr(self, name)
            if self.C_init == "complex_normal":
                nn.init.normal_(C, std=0.5**0.5)
                continue
            fan_in = N if self.C_init == "trunc_standard_normal" else N * H  # flax counts the leading axis in
            raw = torch.view_as_complex(lecun_normal_(torch.empty(H, N, 2, device=C.device), fan_in))
            C.copy_(torch.view_as_real(raw.view(H, self.blocks, -1) @ basis).flatten(1, 2))
        nn.init.normal_(self.D)
        for dense in (self.out1, self.out2):
            if dense is not None:
                flax_dense_(dense)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """Λ, B and Δ learn at 1e-3 at most and do not decay; C does (`opt_config` "standard")."""
        slow = dict.fromkeys(("Lambda_re", "Lambda_im", "log_step", "B"), ParamOverride(lr_max=1e-3, decay=False))
        return slow | {"D": ParamOverride(decay=False)} | dict.fromkeys(self.readers, ParamOverride(decay=True))


def spectrum(N: int, half: bool) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors (N, ·) of the normal part of HiPPO-LegS, in order of Im; or their first half."""
    form = hippo.nplr("legs", N)
    if half:
        return form.w, form.V
    return np.concatenate([form.w, form.w.conj()[::-1]]), np.concatenate([form.V, form.V.conj()[:, ::-1]], axis=1)
