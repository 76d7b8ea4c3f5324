"""TODO gss."""

from zoo.architectures import register
from zoo.mixers.gss import GSS
from zoo.types import Part, Recipe


@register(
    family="state spaces and long convolutions",
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
    mixer = Part(GSS, expand=expand, d_hidden=d_hidden, d_state=d_state, imag_exp=imag_exp)
    return Recipe(mixer=mixer, channel=None, residual="pre", norm="layer", positions="none")
