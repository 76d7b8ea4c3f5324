"""ConvFormer's mixer: an inverted separable convolution (Yu et al. 2022, arXiv:2210.13452).

    u = W_1 x,    v = s · ReLU(u)² + b,    y = W_2 (K ∗ v)

for each step of a grid. K ∗ v convolves every channel of v with a kernel of its own, zeros around the grid; s and b are
learned numbers (StarReLU). Steps are read in raster order, as patches of an image are.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, Part, State, Traits
from zoo.layers.linear import branch_
from zoo.layers.ranges import at_least_one, hidden_units
from zoo.layers.tensors import zero_padding


class StarReLU(nn.Module):
    """s · ReLU(u)² + b. At the start s = 0.8944 and b = −0.4472 give N(0, 1) a mean of 0 and a variance of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.empty(1)), nn.Parameter(torch.empty(1))

    def forward(self, u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return self.scale * F.relu(u).square() + self.bias

    def reset_parameters(self) -> None:
        """s = √(4/5) and b = −s/2, as E ReLU(u)² = 1/2 and Var ReLU(u)² = 5/4 for u ~ N(0, 1)."""
        nn.init.constant_(self.scale, 0.8**0.5)
        nn.init.constant_(self.bias, -(0.2**0.5))


@register(
    family="mixers and transforms",
    paper="Yu et al. 2022, MetaFormer Baselines for Vision, arXiv:2210.13452",
    source="https://github.com/sail-sg/metaformer (metaformer_baselines.py); "
    "https://github.com/huggingface/pytorch-image-models (timm/models/metaformer.py)",
    deviations=(
        "one width and one resolution throughout, as of a vision transformer; the paper has four stages",
        "GELU in the MLPs, as in the other vision models here; the paper has StarReLU",
        "StarReLU starts at s = 0.894 and b = -0.447, as the paper derives it; the official code starts at 1 and 0",
        "LayerNorm with a bias, and no scale on the residual of the last stages",
        "steps that are not an image (no `columns`) are one row, under kernels as wide and one step high",
        "projections start at N(0, 1/fan_in), the one into the residual stream scaled by 1/sqrt(2 depth)",
    ),
    channel=Part("mlp", bias=False),
    norm="layer_eps6",
)
class SeparableConvolution(Mixer):
    """ConvFormer: a 7 × 7 convolution of each channel between two projections, and an MLP; never causal.

    Steps are rows of `columns` patches; None: one row. Projections are to `expand` · width channels and back.
    """

    traits = Traits(causal="no", bidirectional=True, resumable=False)

    def __init__(
        self, context: LayerContext, *, columns: int | None = None, kernel: int = 7, expand: float = 2.0
    ) -> None:
        super().__init__(context)
        at_least_one("separable_convolution", columns=columns, kernel=kernel)
        if kernel % 2 == 0:
            raise ValueError(f"separable_convolution: kernel must be odd, to have a centre, got {kernel}")
        hidden = hidden_units("separable_convolution", expand, context)
        self.gain, self.columns = context.gain, columns
        self.fc1 = nn.Linear(context.width, hidden, bias=False)
        self.act = StarReLU()
        size = (1 if columns is None else kernel, kernel)
        padding = (size[0] // 2, kernel // 2)
        self.conv = nn.Conv2d(hidden, hidden, size, padding=padding, groups=hidden, bias=False)
        self.fc2 = nn.Linear(hidden, context.width, bias=False)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        T, columns = x.shape[1], self.columns or x.shape[1]
        v = F.pad(zero_padding(self.act(self.fc1(x)), mask), (0, 0, 0, -T % columns))
        grid = v.unflatten(1, (-1, columns)).permute(0, 3, 1, 2)
        return self.fc2(self.conv(grid).permute(0, 2, 3, 1).flatten(1, 2)[:, :T]), None

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 1/fan_in), a kernel's too; s and b as StarReLU's."""
        branch_(values=self.fc1, out=self.fc2, depth=depth, gain=self.gain)
        nn.init.normal_(self.conv.weight, std=self.conv.weight[0].numel() ** -0.5)
        self.act.reset_parameters()
