"""Gated linear units, the MLP of a Llama block."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.contract import LayerContext, Mixer, State, Traits
from zoo.layers.activations import activation_of
from zoo.layers.initialisation import fan_in_, residual_scale
from zoo.layers.linear import Linear
from zoo.layers.mlp import hidden_units
from zoo.ops.elementwise import swiglu


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
        self.gain, self.activation = context.gain, activation_of(activation)
        self.gate = Linear(context.width, hidden, bias=bias)
        self.up = Linear(context.width, hidden, bias=bias)
        self.down = Linear(hidden, context.width, bias=bias)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        if x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            return self._padded(x), state
        return self.down(self._gated(self.gate(x), self.up(x))), state

    def _gated(self, gate: Float[Tensor, "B T F"], up: Float[Tensor, "B T F"]) -> Float[Tensor, "B T F"]:
        return swiglu(gate, up) if self.activation is F.silu else self.activation(gate) * up

    def _padded(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """The same with hidden units that are always zero up to a multiple of 16.

        MKL's float32 product writes rows of 8/3 · 256 numbers at two thirds of the speed of rows of whole vectors.
        """
        more = -self.gate.out_features % 16
        gate, up = (
            F.linear(x, F.pad(f.weight, (0, 0, 0, more)), None if f.bias is None else F.pad(f.bias, (0, more)))
            for f in (self.gate, self.up)
        )
        return F.linear(self._gated(gate, up), F.pad(self.down.weight, (0, more)), self.down.bias)

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """As `MLP.reset_parameters`."""
        fan_in_(self.gate, self.gain or 1.0)
        fan_in_(self.up, self.gain or 1.0)
        fan_in_(self.down, self.gain or residual_scale(depth))
