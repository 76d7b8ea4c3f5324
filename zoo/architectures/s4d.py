"""TODO s4d."""

from typing import Literal

from zoo.architectures import register
from zoo.mixers.s4d import S4D
from zoo.types import Part, Recipe


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
)
def s4d(
    *,
    d_state: int = 64,
    init: Literal["lin", "inv", "legs", "real"] = "lin",
    disc: Literal["zoh", "bilinear"] = "zoh",
    n_ssm: int | None = None,
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
) -> Recipe:
    """S4D: a diagonal linear state-space model per channel, run as a long convolution, then GELU and a GLU."""
    mixer = Part(S4D, d_state=d_state, init=init, disc=disc, n_ssm=n_ssm, dt_min=dt_min, dt_max=dt_max)
    return Recipe(
        mixer=mixer, channel=None, residual="pre", norm="layer", positions="none", width_multiple=max(1, n_ssm or 1)
    )
