"""gMLP's whole layer: an MLP along features with a gate computed along time (Liu et al. 2021, arXiv:2105.08050).

    Z = GELU(x U),    (Z₁, Z₂) = Z,    s(Z) = Z₁ ⊙ (W norm(Z₂) + b),    y = s(Z) V              (section 2, eqs. 1 to 4)

W (L, L) and b (L) act along time and are the same for all features. W starts at almost 0 and b at 1, so that at first
the layer is an MLP that mixes nothing. There is no channel mixer beside it. The paper gives its code in appendix A;
timm's `GatedMlp` with `SpatialGatingUnit` has the names used here.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, State, Traits
from zoo.layers.linear import branch_
from zoo.layers.tensors import zero_padding


class SpatialGatingUnit(nn.Module):
    """s(Z) over exactly `length` steps, from `hidden` features to half as many."""

    def __init__(self, hidden: int, length: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden // 2)
        self.proj = nn.Linear(length, length)

    def forward(self, z: Float[Tensor, "B T 2E"], mask: Mask | None) -> Float[Tensor, "B T E"]:
        u, v = z.chunk(2, dim=-1)
        return u * self.proj(zero_padding(self.norm(v), mask).transpose(1, 2)).transpose(1, 2)


@register(
    family="mixers and transforms",
    paper="Liu et al. 2021, Pay Attention to MLPs, arXiv:2105.08050",
    source="the paper's appendix A; https://github.com/huggingface/pytorch-image-models (timm/models/mlp_mixer.py)",
    deviations=(
        "no code was published but the appendix; names, LayerNorm epsilons (1e-6 before the layer, 1e-5 in the gate) "
        "and the gate's initial values are timm's",
        "projections along features start at N(0, 1/fan_in), the one into the residual stream scaled by "
        "1/sqrt(2 depth); timm takes Xavier's",
        "8 layers by default, as they have no channel mixer beside them",
        "padding is zero before the spatial projection; shorter sequences are padded to the full length",
        "neither the Toeplitz form of W nor the tiny attention of aMLP is offered",
    ),
    channel=None,
    norm="layer_eps6",
    depth=8,
)
class SpatialGate(Mixer):
    """gMLP: one MLP along features, gated by a linear map along time; never causal, of one fixed length.

    Over exactly `context.length` steps, with `expand` · width hidden features, an even number.
    """

    traits = Traits(causal="no", bidirectional=True, resumable=False, length="fixed")

    def __init__(self, context: LayerContext, *, expand: float = 6.0) -> None:
        super().__init__(context)
        hidden = int(expand * context.width)
        if hidden < 2 or hidden % 2:
            raise ValueError(
                f"spatial_gate: expand {expand} at width {context.width} gives {hidden} hidden features; "
                f"they must be an even number, to split into a half and its gate"
            )
        self.gain = context.gain
        self.fc1 = nn.Linear(context.width, hidden)
        self.gate = SpatialGatingUnit(hidden, context.length)
        self.fc2 = nn.Linear(hidden // 2, context.width)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        L = self.gate.proj.in_features
        if x.shape[1] != L:
            raise ValueError(f"spatial_gate: {x.shape[1]} steps, but it was built for exactly {L}")
        return self.fc2(self.gate(F.gelu(self.fc1(x)), mask)), None

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 10⁻¹²) and b = 1 in the gate (timm); elsewhere W ~ N(0, 1/fan_in), the output's by 1/√(2·depth)."""
        branch_(values=self.fc1, out=self.fc2, depth=depth, gain=self.gain)
        self.gate.norm.reset_parameters()
        nn.init.normal_(self.gate.proj.weight, std=1e-6)
        nn.init.ones_(self.gate.proj.bias)
