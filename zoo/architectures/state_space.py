"""State-space models."""

from typing import Literal

from zoo.architectures import register
from zoo.types import Part, Recipe


@register(
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
    mixer = Part("s4d", d_state=d_state, init=init, disc=disc, n_ssm=n_ssm, dt_min=dt_min, dt_max=dt_max)
    return Recipe(
        mixer=mixer, channel=None, residual="pre", norm="layer", positions="none", width_multiple=max(1, n_ssm or 1)
    )


@register(
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
        "s4",
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


@register(
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
        "s5",
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


@register(
    paper="Orvieto et al. 2023, Resurrecting Recurrent Neural Networks for Long Sequences, arXiv:2303.06349",
    source="https://github.com/NicolasZucchet/minimal-LRU (lru/model.py; the paper's own code is not public)",
    deviations=(
        "LayerNorm before the layer, where the paper's experiments use batch normalisation; no dropout inside it",
        "GELU by its tanh approximation, the default of flax; gelu=erf is the exact one",
        "λ starts off the origin and the unit circle by 1e-7, where nu_log and gamma_log would be infinite",
    ),
)
def lru(
    *,
    d_hidden: int = 128,
    r_min: float = 0.0,
    r_max: float = 1.0,
    max_phase: float = 6.28,
    gelu: Literal["tanh", "erf"] = "tanh",
) -> Recipe:
    """LRU: a complex diagonal linear recurrence, stable by its parametrisation and normalised, then GELU and a GLU."""
    mixer = Part("lru", d_hidden=d_hidden, r_min=r_min, r_max=r_max, max_phase=max_phase, gelu=gelu)
    return Recipe(mixer=mixer, channel=None, residual="pre", norm="layer", positions="none")


@register(
    paper="Mehta et al. 2022, Long Range Language Modeling via Gated State Spaces, arXiv:2206.13947",
    source="https://github.com/lucidrains/gated-state-spaces-pytorch (gss.py, after the paper's pseudocode)",
    deviations=(
        "the paper's simplified DSS: no softmax over time, no Δ, Λ and C drawn from N(0, 1) (not DSS's own recipe)",
        "a quarter of the width in the state space, the paper's 256 of 1024; the second source has 256 for any width",
        "projections start N(0, 1/fan_in), the last scaled by 1/√(2·depth); the second source has PyTorch's default",
        "pure GSS: no blocks of local attention between (the paper's hybrid)",
    ),
)
def gss(
    *,
    expand: float = 4.0,
    d_hidden: int | None = None,
    d_state: int = 512,
    imag_exp: bool = True,
) -> Recipe:
    """GSS: a gated unit whose narrow branch is a diagonal state-space model, run as a long convolution."""
    mixer = Part("gss", expand=expand, d_hidden=d_hidden, d_state=d_state, imag_exp=imag_exp)
    return Recipe(mixer=mixer, channel=None, residual="pre", norm="layer", positions="none")
