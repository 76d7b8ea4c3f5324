"""TODO gmlp."""

from zoo.architectures import register
from zoo.mixers.spatial_gate import SpatialGate
from zoo.types import Part, Recipe


@register(
    family="mixers and transforms",
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
        mixer=Part(SpatialGate, expand=expand),
        channel=None,
        residual="pre",
        norm="layer_eps6",
        positions="none",
        depth=8,
    )
