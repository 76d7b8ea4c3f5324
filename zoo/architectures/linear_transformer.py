"""TODO linear_transformer."""

from zoo.architectures import register
from zoo.mixers.linear_transformer import LinearAttention
from zoo.types import Part, Recipe


@register(
    family="efficient attention",
    paper="Katharopoulos et al. 2020, Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention, "
    "arXiv:2006.16236",
    source="https://github.com/idiap/fast-transformers (fast_transformers/attention: attention_layer.py, "
    "causal_linear_attention.py, linear_attention.py)",
    deviations=(
        "1e-6 is added to every normaliser, as in the official code; the paper has no ε",
        "residual type, GELU, positions and initialisation are pre_ln's; the official encoder is Post-LN with ReLU",
    ),
)
def linear_transformer(*, heads: int = 4, eps: float = 1e-6) -> Recipe:
    """Transformer whose attention weighs by φ(q)·φ(k) with φ = elu + 1, which a state of fixed size sums up."""
    mixer = Part(LinearAttention, heads=heads, eps=eps)
    return Recipe(mixer=mixer, residual="pre", positions="learned", width_multiple=heads)
