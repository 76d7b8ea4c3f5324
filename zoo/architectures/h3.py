"""TODO h3."""

from typing import Literal

from zoo.architectures import register
from zoo.mixers.h3 import H3
from zoo.types import Part, Recipe


@register(
    family="state spaces and long convolutions",
    paper="Fu, Dao et al. 2023, Hungry Hungry Hippos: Towards Language Modeling with State Space Models, "
    "arXiv:2212.14052",
    source="https://github.com/HazyResearch/H3 (src/models/ssm/h3.py, ss_kernel_diag.py, ss_kernel_shift.py)",
    deviations=(
        "head_dim>1: channels leave the layer head by head, as from the official fused kernel; without that kernel the "
        "official layer orders them (d h), which the mixer offers as layout='d h'",
        "the projections start at N(0, 1/fan_in), the last one scaled by 1/sqrt(2 depth); the official model takes "
        "N(0, 0.02) for all of them (its rule for output layers names another parameter)",
        "C and D of both models do not decay; the official code exempts A, B and Δ only",
        "GELU is exact (erf), where the official MLP uses the tanh approximation; no dropout; the head is not tied",
        "B is trained in the shift model, as in the official code; the paper fixes it at e₁",
    ),
)
def h3(
    *,
    d_state: int = 64,
    head_dim: int = 1,
    init: Literal["lin", "inv", "legs", "real"] = "lin",
    disc: Literal["zoh", "bilinear"] = "bilinear",
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
) -> Recipe:
    """H3: a shift and a diagonal state-space model between multiplicative gates, in a Pre-LN transformer block."""
    mixer = Part(H3, d_state=d_state, head_dim=head_dim, init=init, disc=disc, dt_min=dt_min, dt_max=dt_max)
    return Recipe(mixer=mixer, channel=Part("mlp"), residual="pre", norm="layer", width_multiple=max(1, head_dim))
