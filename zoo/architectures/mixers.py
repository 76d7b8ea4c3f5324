"""Architectures without attention or recurrence: MLPs along time."""

from zoo.architectures import register
from zoo.types import Part, Recipe


@register(
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
        mixer=Part("token_mlp", tokens_ratio=tokens_ratio),
        channel=Part("mlp"),
        residual="pre",
        norm="layer_eps6",
        positions="none",
    )


@register(
    paper="Liu et al. 2021, Pay Attention to MLPs, arXiv:2105.08050",
    source="the paper's appendix A; https://github.com/huggingface/pytorch-image-models (timm/models/mlp_mixer.py)",
    deviations=(
        "no code was published but the appendix; names, LayerNorm epsilons (1e-6 before the layer, 1e-5 in the gate) "
        "and the gate's initial values are timm's",
        "projections along features start at N(0, 1/fan_in), the one into the residual stream scaled by "
        "1/sqrt(2 depth); timm takes Xavier's",
        "8 layers by default, as they have no channel mixer beside them",
        "padding is zero before the spatial projection; shorter sequences are padded to the full length",
        "neither the Toeplitz form of W nor the tiny attention of aMLP is offered",
    ),
)
def gmlp(*, expand: float = 6.0) -> Recipe:
    """gMLP: one MLP along features, gated by a linear map along time; never causal, of one fixed length."""
    return Recipe(
        mixer=Part("spatial_gate", expand=expand),
        channel=None,
        residual="pre",
        norm="layer_eps6",
        positions="none",
        depth=8,
    )


@register(
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
        mixer=Part("fourier"),
        channel=Part("mlp", activation="gelu_tanh"),
        residual="post",
        norm="layer_eps12",
        positions="learned",
    )
