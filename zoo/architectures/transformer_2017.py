"""The original transformer (Vaswani et al. 2017, arXiv:1706.03762, section 3).

    x ← LN(x + f(x)),    f = attention, then cross attention (decoder only), then FFN
    head_h = softmax(Q_h K_hᵀ / √d_h) V_h,    attention(x) = concat(head_1, ..., head_H) W_O
    FFN(x) = max(0, x W₁ + b₁) W₂ + b₂
    x_t = √D E[u_t] + PE_t,    PE_{t,2i} = sin(t / 10000^{2i/D}),    PE_{t,2i+1} = cos(t / 10000^{2i/D})

The token table E is the output head too.
"""

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
