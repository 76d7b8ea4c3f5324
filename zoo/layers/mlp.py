"""The MLP of a transformer block."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from zoo.contract import LayerContext, Mask, Mixed, Mixer, State, Traits
from zoo.layers.activations import ACTIVATIONS
from zoo.layers.initialisation import branch_
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

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        return self.down(self.activation(self.up(x))), state

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `branch_`."""
        branch_(values=self.up, out=self.down, depth=depth, gain=self.gain)


def hidden_units(name: str, expand: float, context: LayerContext) -> int:
    """`expand` times the width, rounded.

    Raises:
        ValueError: nothing is left.
    """
    hidden = round(expand * context.width)
    if hidden < 1:
        raise ValueError(f"{name}: expand {expand} leaves no hidden unit at width {context.width}")
    return hidden
