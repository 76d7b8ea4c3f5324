"""The linear recurrent unit (Orvieto et al. 2023, arXiv:2303.06349, section 3 and appendix A).

    λ = exp(−exp(ν_log) + i exp(θ_log)),    γ = exp(γ_log)
    x_t = λ ⊙ x_{t−1} + γ ⊙ B u_t,    y_t = Re(C x_t) + D ⊙ u_t,    g = GELU(y),    out = W₁ g ⊙ σ(W₂ g)

λ starts uniform on the ring r_min ≤ |λ| ≤ r_max, arg λ ≤ max_phase, and γ = √(1 − |λ|²).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, State, Traits
from zoo.layers.diagonal import diagonal_recurrence
from zoo.layers.linear import Linear, flax_dense_
from zoo.layers.ranges import at_least_one, positive
from zoo.layers.tensors import in_fp32, zero_padding, zeros_fp32


@register(
    family="state spaces and long convolutions",
    paper="Orvieto et al. 2023, Resurrecting Recurrent Neural Networks for Long Sequences, arXiv:2303.06349",
    source="https://github.com/NicolasZucchet/minimal-LRU (lru/model.py; the paper's own code is not public)",
    deviations=(
        "LayerNorm before the layer, where the paper's experiments use batch normalisation; no dropout inside it",
        "GELU by its tanh approximation, the default of flax; gelu=erf is the exact one",
        "λ starts off the origin and the unit circle by 1e-7, where nu_log and gamma_log would be infinite",
    ),
    channel=None,
)
class LRU(Mixer):
    """LRU: a complex diagonal linear recurrence, stable by its parametrisation and normalised, then GELU and a GLU.

    State: `x` (B, N, 2), real and imaginary parts, in float32 at least.

    Args:
        d_hidden: N, complex modes. r_min, r_max, max_phase: where λ starts.
        gelu: `tanh`, the approximation that is flax' default, or `erf`.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(
        self,
        context: LayerContext,
        *,
        d_hidden: int = 128,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 6.28,
        gelu: Literal["tanh", "erf"] = "tanh",
    ) -> None:
        super().__init__(context)
        at_least_one("lru", d_hidden=d_hidden)
        if not 0 <= r_min < r_max <= 1:
            raise ValueError(f"lru: need 0 <= r_min < r_max <= 1, got {r_min} and {r_max}")
        positive("lru", max_phase=max_phase)
        H, N = context.width, d_hidden
        self.r_min, self.r_max, self.max_phase = r_min, r_max, max_phase
        self.approximate = "tanh" if gelu == "tanh" else "none"
        self.nu_log, self.theta_log, self.gamma_log = (nn.Parameter(torch.empty(N)) for _ in range(3))
        self.B_re, self.B_im = (nn.Parameter(torch.empty(N, H)) for _ in range(2))
        self.C_re, self.C_im = (nn.Parameter(torch.empty(H, N)) for _ in range(2))
        self.D = nn.Parameter(torch.empty(H))
        self.out1, self.out2 = Linear(H, H), Linear(H, H)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        y, new = self.unit(x, mask, state)
        g = F.gelu(y, approximate=self.approximate).to(x.dtype)
        return self.out1(g) * torch.sigmoid(self.out2(g)), new

    @in_fp32
    def unit(self, u: Float[Tensor, "B T D"], mask: Mask | None = None, state: State | None = None) -> Mixed:
        """The recurrence alone: y, before the activation."""
        u = zero_padding(u, mask)
        nu, theta, gamma = self.nu_log.exp(), self.theta_log.exp(), self.gamma_log.exp()
        Bu = gamma * torch.complex(u @ self.B_re.T, u @ self.B_im.T)
        x0 = None if state is None else torch.view_as_complex(state["x"].contiguous())
        xs = diagonal_recurrence(torch.polar(torch.exp(-nu), theta), Bu, x0, mask)
        y = xs.real @ self.C_re.T - xs.imag @ self.C_im.T + self.D * u
        return y, None if state is None else {"x": torch.view_as_real(xs[:, -1])}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {"x": zeros_fp32(batch, len(self.nu_log), 2, device=device, dtype=dtype)}

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """λ uniform on the ring (lemma 3.2), B and C normal (Glorot), D ~ N(0, 1); dense layers as flax has them."""
        N, H = self.B_re.shape
        u, phase = (torch.rand_like(self.nu_log).clamp(min=1e-7) for _ in range(2))
        squared = u * (self.r_max**2 - self.r_min**2) + self.r_min**2
        self.nu_log.copy_(torch.log(-0.5 * torch.log(squared.clamp(max=1 - 1e-7))))
        self.theta_log.copy_(torch.log(self.max_phase * phase))
        self.gamma_log.copy_(0.5 * torch.log(-torch.expm1(-2 * self.nu_log.exp())))
        for B in (self.B_re, self.B_im):
            nn.init.normal_(B, std=(2 * H) ** -0.5)
        for C in (self.C_re, self.C_im):
            nn.init.normal_(C, std=N**-0.5)
        nn.init.normal_(self.D)
        for dense in (self.out1, self.out2):
            flax_dense_(dense)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """λ, γ and B learn at half the rate (minimal-LRU's lr_factor) and do not decay; C does."""
        names = "nu_log", "theta_log", "gamma_log", "B_re", "B_im"
        slow = dict.fromkeys(names, ParamOverride(lr_scale=0.5, decay=False))
        C = dict.fromkeys(("C_re", "C_im"), ParamOverride(decay=True))
        return slow | {"D": ParamOverride(decay=False)} | C
