"""Channel mixers: what happens along the features, between two mixers along time."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.contract import Mixer, Site, State, Traits
from zoo.initialise import fan_in_, residual_scale
from zoo.lookup import Table

CHANNELS = Table("channel mixer", {"mlp": "zoo.channel:MLP", "rwkv4": "zoo.mixers.rwkv4:ChannelMix"})


class MLP(Mixer):
    """W₂ GELU(W₁ x + b₁) + b₂ at every step (Vaswani et al. 2017, section 3.3, with GELU for ReLU)."""

    traits = Traits(causal="strict", bidirectional=True, resumable=True)

    def __init__(self, site: Site, *, expand: float = 4.0) -> None:
        super().__init__(site)
        hidden = round(expand * site.width)
        if hidden < 1:
            raise ValueError(f"mlp: expand {expand} leaves no hidden unit at width {site.width}")
        self.up = nn.Linear(site.width, hidden)
        self.down = nn.Linear(hidden, site.width)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        return self.down(nn.functional.gelu(self.up(x))), state

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 1/fan_in), the projection into the residual stream scaled by 1/√(2·depth); biases zero."""
        fan_in_(self.up)
        fan_in_(self.down, residual_scale(depth))
