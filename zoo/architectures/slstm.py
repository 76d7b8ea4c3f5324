"""TODO slstm."""

from typing import Literal

from zoo.architectures import register
from zoo.mixers.slstm import SLSTM
from zoo.types import Part, Recipe

PAPER = "Beck et al. 2024, xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517"
NORM = "LayerNorm before the layer has a bias and its weight starts at 1 (official: no bias, weight 1 + w from w = 0)"


@register(
    family="recurrent",
    paper=PAPER,
    source="https://github.com/NX-AI/xlstm (xlstm/blocks/slstm/layer.py, cell.py, src/vanilla/slstm.py)",
    deviations=(
        NORM,
        "the weights named fgate drive the input gate and igate the forget gate, as in the official code",
        "the forget gate is σ, the official cell's; the paper leaves σ or exp open",
        "recurrent weights start at zero and the forget bias at a power law from 5 to −7, the official cell's default",
        "a new row starts at m = −∞ by itself, as in the official CUDA kernel; the vanilla one asks the whole batch",
        "the gated MLP is 1.3 D wide, not rounded up to a multiple of 64, and starts at N(0, 1/fan_in), its output "
        "scaled by 1/√(2·depth)",
        "no dropout inside the layer",
    ),
)
def slstm(
    *,
    heads: int = 4,
    conv1d_kernel_size: int = 4,
    group_norm_weight: bool = True,
    bias_init: Literal["powerlaw_blockdependent", "small_init", "zeros", "standard"] = "powerlaw_blockdependent",
    recurrent_weight_init: Literal["zeros", "standard"] = "zeros",
    expand: float = 1.3,
) -> Recipe:
    """xLSTM[0:1]: blocks of sLSTM, an LSTM with exponential input gates and recurrent heads, and a gated MLP."""
    mixer = Part(
        SLSTM,
        heads=heads,
        conv1d_kernel_size=conv1d_kernel_size,
        group_norm_weight=group_norm_weight,
        bias_init=bias_init,
        recurrent_weight_init=recurrent_weight_init,
    )
    return Recipe(
        mixer=mixer,
        channel=Part("glu", activation="gelu", expand=expand),
        residual="pre",
        norm="layer",
        positions="none",
        width_multiple=heads,
    )
