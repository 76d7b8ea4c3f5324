"""xLSTM."""

from typing import Literal

from zoo.architectures import register
from zoo.types import Part, Recipe

PAPER = "Beck et al. 2024, xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517"
NORM = "LayerNorm before the layer has a bias and its weight starts at 1 (official: no bias, weight 1 + w from w = 0)"


@register(
    paper=PAPER,
    source="https://github.com/NX-AI/xlstm (xlstm/blocks/mlstm/layer.py, cell.py, backends.py)",
    deviations=(
        NORM,
        "the width inside, 2 D, is rounded up to what divides into heads and blocks; "
        "round_proj_up_to_multiple_of=64 is official",
        "the stabiliser m starts at 0 as in the official step, and in the parallel form too (official there: −∞); "
        "this and the ε = 1e-6 that m then scales change outputs by about 1e-6, and gradients leave it out",
        "the output gate is SiLU(z), behind norm and skip, as in the official code; eq. (21) of the paper has σ(o) ⊙ h",
        "no dropout inside the layer",
    ),
)
def mlstm(
    *,
    heads: int = 4,
    conv1d_kernel_size: int = 4,
    qkv_proj_blocksize: int = 4,
    proj_factor: float = 2.0,
    round_proj_up_to_multiple_of: int | None = None,
    bias: bool = False,
) -> Recipe:
    """xLSTM[1:0]: blocks of mLSTM, a matrix memory with exponential input gates and no recurrent weights."""
    mixer = Part(
        "mlstm",
        heads=heads,
        conv1d_kernel_size=conv1d_kernel_size,
        qkv_proj_blocksize=qkv_proj_blocksize,
        proj_factor=proj_factor,
        round_proj_up_to_multiple_of=round_proj_up_to_multiple_of,
        bias=bias,
    )
    return Recipe(mixer=mixer, channel=None, residual="pre", norm="layer", positions="none", depth=8)


@register(
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
        "slstm",
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
