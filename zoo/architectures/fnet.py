"""TODO fnet."""

from zoo.architectures import register
from zoo.mixers.fourier import Fourier
from zoo.types import Part, Recipe


@register(
    family="mixers and transforms",
    paper="Lee-Thorp et al. 2021, FNet: Mixing Tokens with Fourier Transforms, arXiv:2105.03824",
    source="https://github.com/google-research/google-research (f_net)",
    deviations=(
        "padding is zero wherever time is mixed, up to the full length; the official code mixes in the embeddings of "
        "padding tokens, so that its outputs depend on them",
        "no LayerNorm and projection between the embedding and the first layer, no token types, no pooler",
        "initialisation is pre_ln's (1/sqrt(fan_in) for a constant 0.02)",
    ),
)
def fnet() -> Recipe:
    """FNet: the real part of a 2-D Fourier transform for attention, Post-LN; never causal, of one fixed length."""
    return Recipe(
        mixer=Part(Fourier),
        channel=Part("mlp", activation="gelu_tanh"),
        residual="post",
        norm="layer_eps12",
        positions="learned",
    )
