"""TODO mamba2."""

import math

from zoo.architectures import register
from zoo.mixers.mamba2 import Mamba2
from zoo.types import Part, Recipe


@register(
    family="state spaces and long convolutions",
    paper="Dao & Gu 2024, Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State "
    "Space Duality, arXiv:2405.21060, section 7",
    source="https://github.com/state-spaces/mamba (mamba_ssm/modules/mamba2.py, mamba2_simple.py)",
    deviations=(
        "headdim is 64, or where that does not divide the channels the largest divisor of 64 that does",
        "chunks are of 64 steps, not 256, which changes the speed only",
        "with several groups the gated norm is taken per group, as in Mamba2; norm_groups=1 is Mamba2Simple's",
        "no learnable initial state (an option of Mamba2Simple)",
        "the output head is not tied to the token table, where the official language model ties them",
    ),
)
def mamba2(
    *,
    d_state: int = 128,
    d_conv: int = 4,
    expand: int = 2,
    headdim: int | None = None,
    ngroups: int = 1,
    D_has_hdim: bool = False,
    rmsnorm: bool = True,
    norm_before_gate: bool = False,
    norm_groups: int | None = None,
    dt_min: float = 1e-3,
    dt_max: float = 1e-1,
    dt_init_floor: float = 1e-4,
    dt_limit: tuple[float, float] | None = None,
    conv_bias: bool = True,
    bias: bool = False,
    chunk_size: int = 64,
) -> Recipe:
    """Mamba-2: a state space with one decay per head, as chunked linear attention, gated and normed, no MLP."""
    mixer = Part(
        Mamba2,
        d_state=d_state,
        d_conv=d_conv,
        expand=expand,
        headdim=headdim,
        ngroups=ngroups,
        D_has_hdim=D_has_hdim,
        rmsnorm=rmsnorm,
        norm_before_gate=norm_before_gate,
        norm_groups=norm_groups,
        dt_min=dt_min,
        dt_max=dt_max,
        dt_init_floor=dt_init_floor,
        dt_limit=dt_limit,
        conv_bias=conv_bias,
        bias=bias,
        chunk_size=chunk_size,
    )
    inner = (headdim or 1) * ngroups  # what expand · width must be a multiple of
    multiple = inner // math.gcd(inner, expand) if inner > 0 and expand > 0 else 1
    return Recipe(mixer=mixer, channel=None, residual="pre", norm="rms_eps5", depth=8, width_multiple=multiple)
