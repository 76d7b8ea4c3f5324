"""DeepNorm: Post-LN with a stronger residual and a smaller start (Wang et al. 2022, arXiv:2203.00555).

    x ← LN(α x + f(x)),    f = attention, then MLP,    α = (2N)^{1/4},    β = (8N)^{−1/4}

in N blocks; the weights of values, outputs and MLPs start β times as large.
"""

from zoo.architectures import register
from zoo.architectures.pre_ln import pre_ln
from zoo.layers.attention import Attention
from zoo.types import Recipe


@register(
    options=Attention,
    family="transformers",
    paper="Wang et al. 2022, DeepNet: Scaling Transformers to 1,000 Layers, arXiv:2203.00555",
    source="https://github.com/microsoft/torchscale (torchscale/architecture/encoder.py, decoder.py)",
    deviations=(
        "β scales N(0, 1/fan_in) where the official code scales Xavier's normal",
        "a block without a channel mixer counts as a layer, as one with both does",
        "positions, GELU, biases and initialisation are pre_ln's: the two differ in the residual type only",
    ),
)
def deepnorm(**options: object) -> Recipe:
    """Post-LN with a stronger residual, LN(α x + f(x)), and values, outputs and MLPs that start β times as large."""
    return pre_ln(**options).replace(residual="deepnorm")
