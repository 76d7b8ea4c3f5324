"""TODO lstm."""

from zoo.architectures import register
from zoo.mixers.lstm import LSTM
from zoo.types import Part, Recipe


@register(
    family="recurrent",
    paper="Hochreiter and Schmidhuber 1997, Long Short-Term Memory, Neural Computation 9(8)",
    source="torch.nn.LSTM",
    deviations=(
        "two bias vectors per gate, as cuDNN has them",
        "input, forget and output gates; no peepholes",
    ),
)
def lstm(*, forget_bias: float = 1.0) -> Recipe:
    """Stacked LSTM layers without residuals or norms, as language models used them before transformers."""
    mixer = Part(LSTM, forget_bias=forget_bias)
    return Recipe(mixer=mixer, channel=None, residual="plain", norm="none", embedding="unit", depth=2)
