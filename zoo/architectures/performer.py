"""TODO performer."""

from typing import Literal

from zoo.architectures import register
from zoo.mixers.performer import Performer
from zoo.types import Part, Recipe


@register(
    family="efficient attention",
    paper="Choromanski et al. 2021, Rethinking Attention with Performers, arXiv:2009.14794",
    source="https://github.com/google-research/google-research (performer/fast_attention/jax/fast_attention.py)",
    deviations=(
        "causal: keys take no stabiliser. The official maximum over the whole sequence lets the future in through ε",
        "ε is 1e-4, the default of the official feature map and performer-pytorch's constant; the official layer "
        "passes 1e-6, and adds 2e-6 to a normaliser below 1e-6, which we do not",
        "the maximum is a constant for the gradient, as in performer-pytorch; the official code differentiates it",
        "random features stay as drawn unless redraw() is called; the official code redraws at each call, from the "
        "queries, and performer-pytorch every 1000 calls in training",
        "orthogonal blocks are made uniform (signs of R folded into Q); the official code takes Q as LAPACK returns it",
        "kernel='relu' projects by orthogonal features and scales by d^(-1/4), as performer-pytorch does; the official "
        "default there has no projection and no scale",
        "int(d ln d) features by default, as in performer-pytorch; the official code takes 256",
        "residual type, GELU and initialisation are pre_ln's",
    ),
)
def performer(*, heads: int = 4, features: int | None = None, kernel: Literal["softmax", "relu"] = "softmax") -> Recipe:
    """Transformer whose softmax attention is approximated by positive orthogonal random features (FAVOR+)."""
    return Recipe(
        mixer=Part(Performer, heads=heads, features=features, kernel=kernel),
        residual="pre",
        positions="learned",
        width_multiple=heads,
    )
