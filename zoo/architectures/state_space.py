"""State-space models."""

from typing import Literal

from zoo.registry import register
from zoo.terms import Part, Recipe


@register(
    paper="Gu et al. 2022, On the Parameterization and Initialization of Diagonal State Space Models, arXiv:2206.11893",
    source="https://github.com/state-spaces/s4 (models/s4/s4.py, S4Block with SSMKernelDiag)",
    deviations=(
        "one Δ and one state per channel and no dropout inside the layer; LayerNorm stands before the layer",
        "for init=legs, B starts at the moduli of V*B (at most 2), as its phases are the eigensolver's whim",
        "parameters carry the names of models/s4/s4d.py (log_dt, log_A_real) and the sign of s4.py: Im A = -A_imag",
    ),
)
def s4d(
    *,
    d_state: int = 64,
    init: Literal["lin", "inv", "legs", "real"] = "lin",
    disc: Literal["zoh", "bilinear"] = "zoh",
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
) -> Recipe:
    """S4D: a diagonal linear state-space model per channel, run as a long convolution, then GELU and a GLU."""
    mixer = Part("s4d", d_state=d_state, init=init, disc=disc, dt_min=dt_min, dt_max=dt_max)
    return Recipe(mixer=mixer, channel=None, wiring="pre", norm="layer", positions="none")
