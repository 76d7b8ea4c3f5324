"""TODO mlstm."""

from zoo.architectures import register
from zoo.mixers.mlstm import MLSTM
from zoo.types import Part, Recipe

PAPER = "Beck et al. 2024, xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517"
NORM = "LayerNorm before the layer has a bias and its weight starts at 1 (official: no bias, weight 1 + w from w = 0)"


@register(
    family="fast weights and matrix states",
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
        MLSTM,
        heads=heads,
        conv1d_kernel_size=conv1d_kernel_size,
        qkv_proj_blocksize=qkv_proj_blocksize,
        proj_factor=proj_factor,
        round_proj_up_to_multiple_of=round_proj_up_to_multiple_of,
        bias=bias,
    )
    return Recipe(mixer=mixer, channel=None, residual="pre", norm="layer", positions="none", depth=8)
