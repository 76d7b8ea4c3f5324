"""The MLP of a transformer block, plain or gated as in Llama, and the activation functions, by the names of suites."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.contract import LayerContext, Mask, Mixed, Mixer, State, Traits
from zoo.layers.linear import Linear, branch_, fan_in_
from zoo.layers.ranges import hidden_units
from zoo.ops.kernel_log import logged
from zoo.registry import Table

ACTIVATIONS = Table(
    "activation",
    {
        "gelu": F.gelu,
        "gelu_tanh": partial(F.gelu, approximate="tanh"),
        "relu": F.relu,
        "relu2": lambda x: F.relu(x).square(),
        "sigmoid": F.sigmoid,
        "silu": F.silu,
    },
)


Affine: TypeAlias = tuple[Tensor, Tensor | None]
"""The weight and the bias of a linear layer."""
MULTIPLE = 16
"""MKL's float32 product writes rows of 8/3 · 256 numbers at two thirds of the speed of rows of whole vectors, so on a
CPU hidden units that are always zero are added, up to a multiple of this."""


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
        branch_(values=self.up, out=self.down, depth=depth, gain=self.gain)


class GLU(Mixer):
    """W₂ (act(W_g x) ⊙ W₁ x), gated linear units (Shazeer 2020, arXiv:2002.05202); SwiGLU by default, as in Llama.

    `expand` 8/3 gives the parameters of an MLP four times as wide.
    """

    traits = Traits(causal="strict", bidirectional=True, resumable=True)
    feeds_matmul_only = True

    def __init__(
        self, context: LayerContext, *, expand: float = 8 / 3, activation: str = "silu", bias: bool = False
    ) -> None:
        super().__init__(context)
        hidden = hidden_units("glu", expand, context)
        self.gain, self.activation = context.gain, ACTIVATIONS.resolve(activation)
        self.gate = nn.Linear(context.width, hidden, bias=bias)
        self.up = nn.Linear(context.width, hidden, bias=bias)
        self.down = nn.Linear(hidden, context.width, bias=bias)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        gate, up, down = ((layer.weight, layer.bias) for layer in (self.gate, self.up, self.down))
        return glu(x, gate, up, down, self.activation), state

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        fan_in_(self.gate, self.gain or 1.0)
        branch_(values=self.up, out=self.down, depth=depth, gain=self.gain)


@logged("glu")
def glu(
    x: Float[Tensor, "B T D"], gate: Affine, up: Affine, down: Affine, activation: Callable[[Tensor], Tensor]
) -> Float[Tensor, "B T D"]:
    """W₂ (act(W_g x) ⊙ W₁ x)."""
    more = -len(gate[0]) % MULTIPLE if x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") else 0
    if more:
        gate, up = ((F.pad(w, (0, 0, 0, more)), None if b is None else F.pad(b, (0, more))) for w, b in (gate, up))
        down = F.pad(down[0], (0, more)), down[1]
    return F.linear(activation(F.linear(x, *gate)) * F.linear(x, *up), *down)
