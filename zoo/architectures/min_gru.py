"""TODO min_gru."""

from typing import Literal

from zoo.architectures import register
from zoo.mixers.min_gru import MinGRU
from zoo.types import Part, Recipe


@register(
    family="recurrent",
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
    return Recipe(mixer=Part(MinGRU, expand=expand, candidate=candidate, bias=bias), residual="pre")
