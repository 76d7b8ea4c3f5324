"""TODO gru."""

from zoo.architectures import register
from zoo.mixers.gru import GRU
from zoo.types import Part, Recipe


@register(
    family="recurrent",
    paper="Cho et al. 2014, Learning Phrase Representations using RNN Encoder–Decoder, arXiv:1406.1078",
    source="torch.nn.GRU",
    deviations=(
        "the reset gate acts after the product with the recurrent weights, as cuDNN and PyTorch have it, not before",
        "two bias vectors per gate, as cuDNN has them",
    ),
)
def gru() -> Recipe:
    """Stacked GRU layers without residuals or norms."""
    return Recipe(mixer=Part(GRU), channel=None, residual="plain", norm="none", embedding="unit", depth=2)
