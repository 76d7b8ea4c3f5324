"""Selective state spaces: recurrences whose decay and input depend on the input."""

import math
from typing import Literal

from zoo.architectures import register
from zoo.types import Part, Recipe


@register(
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
        "mamba",
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


@register(
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
        "mamba2",
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


_GRIFFIN = {
    "paper": "De et al. 2024, Griffin: Mixing Gated Linear Recurrences with Local Attention for Efficient Language "
    "Models, arXiv:2402.19427",
    "source": "https://github.com/google-deepmind/recurrentgemma (recurrentgemma/torch/layers.py, modules.py)",
}
_DEVIATIONS = (
    "parameters carry the names of transformers' port, where the gates are no modules of their own",
    "the recurrence is as wide as the model by default (RecurrentGemma), where the paper takes about 4/3 of it",
    "a starts uniform on a ring of radii 0.9 to 0.999 (official code), where the paper draws a^c between them",
    "the first input of a sequence enters unscaled (official code; the paper scales it as all others)",
    "gates and decay are computed in float32 where the official code leaves them in bfloat16",
    "the token embedding is not scaled by √width and not tied to the output head",
)


@register(**_GRIFFIN, deviations=_DEVIATIONS)
def rg_lru(*, heads: int = 4, lru_width: int | None = None, d_conv: int = 4) -> Recipe:
    """Hawk: blocks of a gated linear recurrence (RG-LRU) behind a short convolution, and a gated GELU MLP."""
    mixer = Part("rg_lru", heads=heads, lru_width=lru_width, d_conv=d_conv)
    return _griffin_recipe(mixer, heads)


@register(
    **_GRIFFIN,
    deviations=(
        *_DEVIATIONS,
        "the window is 64 steps, or a shorter length, by default; the paper has 1024, RecurrentGemma 2048",
        "a window of w holds the step itself and w - 1 before it, as in transformers; DeepMind's code has one more",
        "attention and MLP start their last projection at 1/√(2·depth·fan_in), the official code at twice that",
    ),
)
def griffin(*, heads: int = 4, window: int | None = None, lru_width: int | None = None, d_conv: int = 4) -> Recipe:
    """Griffin: two blocks of the RG-LRU, then one of local multi-query attention, each with a gated GELU MLP."""
    recurrent = Part("rg_lru", heads=heads, lru_width=lru_width, d_conv=d_conv)
    local = Part("local", heads=heads, window=window, kv_heads=1, bias=False)
    recipe = _griffin_recipe((recurrent, recurrent, local), heads)
    # Half of each head turns, in pairs.
    return recipe.replace(positions=Part("rope", fraction=0.5), width_multiple=4 * heads)


def _griffin_recipe(mixer: Part | tuple[Part, ...], heads: int) -> Recipe:
    channel = Part("glu", activation="gelu_tanh", expand=3.0, bias=True)
    return Recipe(mixer=mixer, channel=channel, residual="pre", norm="rms_one", width_multiple=heads)
