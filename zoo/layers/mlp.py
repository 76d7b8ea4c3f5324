"""The MLP of a transformer block."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from zoo.contract import LayerContext, Mixer, State, Traits
from zoo.layers.activations import ACTIVATIONS
from zoo.layers.initialisation import fan_in_, residual_scale
from zoo.layers.linear import Linear


class MLP(Mixer):
    """W₂ act(W₁ x + b₁) + b₂ at every step (Vaswani et al. 2017, section 3.3, with GELU for ReLU by default)."""

    traits = Traits(causal="strict", bidirectional=True, resumable=True)
    feeds_matmul_only = True

    def __init__(
        self, context: LayerContext, *, expand: float = 4.0, activation: str = "gelu", bias: bool = True
    ) -> None:
        super().__init__(context)
        hidden = hidden_units("mlp", expand, context)
        self.gain, self.activation = context.gain, ACTIVATIONS.resolve(activation)
        self.up = Linear(context.width, hidden, bias=bias)
        self.down = Linear(hidden, context.width, bias=bias)

    def forward(
        self, x: Float[Tensor, "B T D"], *, mask: Bool[Tensor, "B T"] | None = None, state: State | None = None
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        return self.down(self.activation(self.up(x))), state

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 1/fan_in), into the residual stream scaled by 1/√(2·depth); or both scaled by DeepNorm's β."""
        fan_in_(self.up, self.gain or 1.0)
        fan_in_(self.down, self.gain or residual_scale(depth))


def hidden_units(name: str, expand: float, context: LayerContext) -> int:
    """`expand` times the width, rounded.

    Raises:
        ValueError: nothing is left.
    """
    hidden = round(expand * context.width)
    if hidden < 1:
        raise ValueError(f"{name}: expand {expand} leaves no hidden unit at width {context.width}")
    return hidden
