"""TODO s5."""

from typing import Literal

from zoo.architectures import register
from zoo.mixers.s5 import S5
from zoo.types import Part, Recipe


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
)
def s5(
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
) -> Recipe:
    """S5: one diagonal state-space model over all features, run as a parallel scan, then GELU and a gate."""
    mixer = Part(
        S5,
        d_state=d_state,
        blocks=blocks,
        C_init=C_init,
        discretization=discretization,
        dt_min=dt_min,
        dt_max=dt_max,
        conj_sym=conj_sym,
        clip_eigs=clip_eigs,
        activation=activation,
        gelu=gelu,
    )
    return Recipe(mixer=mixer, channel=None, residual="pre", norm="layer", positions="none")
