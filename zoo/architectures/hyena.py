"""TODO hyena."""

from zoo.architectures import register
from zoo.mixers.hyena import Hyena
from zoo.types import Part, Recipe


@register(
    family="state spaces and long convolutions",
    paper="Poli et al. 2023, Hyena Hierarchy: Towards Larger Convolutional Language Models, arXiv:2302.10866",
    source="https://github.com/HazyResearch/safari (standalone_hyena.py; src/models/sequence/hyena.py)",
    deviations=(
        "order>2: the filters' channels are laid out as in standalone_hyena.py (order first), not as in "
        "src/models/sequence/hyena.py",
        "decoding keeps all past inputs of each long convolution; the official code cannot decode step by step",
        "sequences longer than built for are refused; the official code cuts them",
        "the two projections start at N(0, 1/fan_in), the last one scaled by 1/sqrt(2 depth)",
        "the filter's skip (filter_fn.bias) does not decay",
        "no dropout, outer mixing, heads, blocks, inner_factor or post_order_ffn",
        "both ways: two operators, one in reverse time, as the official code has no bidirectional one",
    ),
)
def hyena(
    *,
    order: int = 2,
    filter_order: int = 64,
    emb_dim: int = 3,
    num_inner_mlps: int = 2,
    short_filter_order: int = 3,
    w: float = 1.0,
) -> Recipe:
    """Hyena: gates between implicit convolutions as long as the sequence, in a Pre-LN transformer block."""
    mixer = Part(
        Hyena,
        order=order,
        filter_order=filter_order,
        emb_dim=emb_dim,
        num_inner_mlps=num_inner_mlps,
        short_filter_order=short_filter_order,
        w=w,
    )
    return Recipe(mixer=mixer, channel=Part("mlp"), residual="pre", norm="layer")
