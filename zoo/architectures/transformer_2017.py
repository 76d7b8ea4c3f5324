"""The original transformer: x ← LN(x + f(x)) for f = attention, cross attention (decoder only) and an MLP."""

from zoo.architectures import register
from zoo.layers.attention import Attention
from zoo.layers.cross_attention import CrossAttention
from zoo.types import Part, Recipe, Schedule


@register(
    family="transformers",
    paper="Vaswani et al. 2017, Attention Is All You Need, arXiv:1706.03762",
    source="https://github.com/tensorflow/tensor2tensor (tensor2tensor/models/transformer.py)",
    deviations=(
        "the figure in the first version of the paper and the official code at the time differ in the place of the "
        "LayerNorm; this is the text of section 5.4: dropout, then the sum, then the norm, with no norm at the end",
        "sines and cosines interleave, as in the text; tensor2tensor concatenates them",
        "label smoothing spreads ε evenly over all V classes, the right one included (ε/V, as torch does)",
        "as a language model the decoder without cross attention, as a classifier the encoder",
        "the schedule keeps its shape, warm-up and then √(warm-up / step), but peaks at the learning rate of the suite",
        "dropout on embeddings and sublayers as in the paper's text; none inside attention and feed-forward network",
        "weights start at N(0, 1/fan_in), embeddings at N(0, 1/D), where the official code has its own constants",
    ),
)
def transformer_2017(
    *, heads: int = 4, label_smoothing: float = 0.1, schedule: Schedule | None = "inverse_sqrt"
) -> Recipe:
    """The original encoder–decoder: Post-LN, ReLU, sinusoids, one table, label smoothing, inverse-√ schedule."""
    return Recipe(
        Part(Attention, heads=heads),
        channel=Part("mlp", activation="relu"),
        cross=Part(CrossAttention, heads=heads),
        residual="post",
        positions="sinusoidal",
        embedding="scaled",
        tie=True,
        dropout=0.1,
        label_smoothing=label_smoothing,
        schedule=schedule,
    )
