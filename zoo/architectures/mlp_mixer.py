"""TODO mlp_mixer."""

from zoo.architectures import register
from zoo.mixers.token_mlp import TokenMLP
from zoo.types import Part, Recipe


@register(
    family="mixers and transforms",
    paper="Tolstikhin et al. 2021, MLP-Mixer: An all-MLP Architecture for Vision, arXiv:2105.01601",
    source="https://github.com/google-research/vision_transformer (vit_jax/models_mixer.py)",
    deviations=(
        "GELU exact (erf), as in timm; the official code uses the tanh approximation (Flax's default)",
        "one sequence of steps instead of image patches; shorter sequences are padded with zeros to the full length",
    ),
)
def mlp_mixer(*, tokens_ratio: float = 0.5) -> Recipe:
    """MLP-Mixer: an MLP along time, then an MLP along features, both Pre-LN; never causal, of one fixed length."""
    return Recipe(
        mixer=Part(TokenMLP, tokens_ratio=tokens_ratio),
        channel=Part("mlp"),
        residual="pre",
        norm="layer_eps6",
        positions="none",
    )
