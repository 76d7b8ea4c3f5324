"""TODO s4."""

from typing import Literal

from zoo.architectures import register
from zoo.mixers.s4 import S4
from zoo.types import Part, Recipe


@register(
    family="state spaces and long convolutions",
    paper="Gu et al. 2022, Efficiently Modeling Long Sequences with Structured State Spaces, arXiv:2111.00396",
    source="https://github.com/state-spaces/s4 (models/s4/s4.py, S4Block with SSMKernelDPLR)",
    deviations=(
        "one Δ and one state per channel and no dropout inside the layer; LayerNorm stands before the layer",
        "the parameter C is C̃ = C(I − Ā^L), as the official code's is after its first forward pass, from the start and "
        "with L the length the model is built for; longer inputs carry C̃ on without rewriting the parameter",
        "the frequency form is multiplied through by (1 + ω)/2, which the official code divides by, zero at ω = −1",
        "eigenvectors of HiPPO have their first component positive; B is clipped at that phase (official: ± of it)",
        "for both directions the framework sums two layers, where the official layer has a two-sided kernel",
        "parameters are named log_dt, log_A_real, output for inv_dt, A_real, output_linear.0",
    ),
)
def s4(
    *,
    d_state: int = 64,
    init: Literal["legs", "legt", "fout", "hippo"] = "legs",
    rank: int = 1,
    n_ssm: int | None = None,
    channels: int = 1,
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
) -> Recipe:
    """S4: a diagonal-plus-low-rank HiPPO system per channel, run as a long convolution, then GELU and a GLU."""
    mixer = Part(
        S4,
        d_state=d_state,
        init=init,
        rank=rank,
        n_ssm=n_ssm,
        channels=channels,
        dt_min=dt_min,
        dt_max=dt_max,
    )
    multiple = max(1, n_ssm or (2 if init == "hippo" else 1))
    return Recipe(mixer=mixer, channel=None, residual="pre", norm="layer", positions="none", width_multiple=multiple)
