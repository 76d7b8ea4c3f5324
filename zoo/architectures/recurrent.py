"""Recurrent networks."""

from typing import Literal

from zoo.architectures import register
from zoo.types import Part, Recipe


@register(
    paper="Hochreiter and Schmidhuber 1997, Long Short-Term Memory, Neural Computation 9(8)",
    source="torch.nn.LSTM",
    deviations=(
        "two bias vectors per gate, as cuDNN has them",
        "input, forget and output gates; no peepholes",
    ),
)
def lstm(*, forget_bias: float = 1.0) -> Recipe:
    """Stacked LSTM layers without residuals or norms, as language models used them before transformers."""
    mixer = Part("lstm", forget_bias=forget_bias)
    return Recipe(mixer=mixer, channel=None, residual="plain", norm="none", embedding="unit", depth=2)


@register(
    paper="Cho et al. 2014, Learning Phrase Representations using RNN Encoder–Decoder, arXiv:1406.1078",
    source="torch.nn.GRU",
    deviations=(
        "the reset gate acts after the product with the recurrent weights, as cuDNN and PyTorch have it, not before",
        "two bias vectors per gate, as cuDNN has them",
    ),
)
def gru() -> Recipe:
    """Stacked GRU layers without residuals or norms."""
    return Recipe(mixer=Part("gru"), channel=None, residual="plain", norm="none", embedding="unit", depth=2)


@register(
    paper="Feng et al. 2024, Were RNNs All We Needed?, arXiv:2410.01201",
    source="no official code; https://github.com/lucidrains/minGRU-pytorch",
    deviations=(
        "the scan runs on (1 − z) and z h̃ themselves, which is exact; the paper's runs in log space",
        "Pre-LN blocks with an MLP; the paper's language models add a convolution of width 4 before the minGRU",
        "the state starts at zero; the paper's log-space code needs a positive start, g(0) = ½, where one is given",
        "weights start at N(0, 1/fan_in), the projection into the residual stream scaled by 1/√(2·depth)",
    ),
)
def min_gru(*, expand: float = 1.0, candidate: Literal["positive", "linear"] = "positive", bias: bool = True) -> Recipe:
    """minGRU: gates that see the input only, so that the recurrence is a scan; Pre-LN blocks with an MLP."""
    return Recipe(mixer=Part("min_gru", expand=expand, candidate=candidate, bias=bias), residual="pre")
