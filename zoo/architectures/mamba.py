"""TODO mamba."""

from typing import Literal

from zoo.architectures import register
from zoo.mixers.mamba import Mamba
from zoo.types import Part, Recipe


@register(
    family="state spaces and long convolutions",
    paper="Gu & Dao 2023, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv:2312.00752",
    source="https://github.com/state-spaces/mamba (mamba_ssm/modules/mamba_simple.py, models/mixer_seq_simple.py)",
    deviations=(
        "the input enters by Euler's rule, ΔB, as in the official code; the paper's eq. 4 has the zero-order hold",
        "the output head is not tied to the token table, where the official language model ties them",
    ),
)
def mamba(
    *,
    d_state: int = 16,
    d_conv: int = 4,
    expand: float = 2.0,
    dt_rank: int | Literal["auto"] = "auto",
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
    dt_init: Literal["random", "constant"] = "random",
    dt_scale: float = 1.0,
    dt_init_floor: float = 1e-4,
    conv_bias: bool = True,
    bias: bool = False,
) -> Recipe:
    """Mamba: a diagonal state-space model whose step size, input and output depend on the token, gated, no MLP."""
    mixer = Part(
        Mamba,
        d_state=d_state,
        d_conv=d_conv,
        expand=expand,
        dt_rank=dt_rank,
        dt_min=dt_min,
        dt_max=dt_max,
        dt_init=dt_init,
        dt_scale=dt_scale,
        dt_init_floor=dt_init_floor,
        conv_bias=conv_bias,
        bias=bias,
    )
    return Recipe(mixer=mixer, channel=None, residual="pre", norm="rms_eps5", depth=8)
