"""Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078; reset after the product, as in cuDNN and PyTorch).

    r, z = σ of (W x_t + b + U h_{t−1} + c)
    n = tanh(W_n x_t + b_n + r ⊙ (U_n h_{t−1} + c_n)),    h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}

The state is h: D numbers per layer, whatever the length.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, State, Traits
from zoo.layers import rnn


@register(
    family="recurrent",
    paper="Cho et al. 2014, Learning Phrase Representations using RNN Encoder–Decoder, arXiv:1406.1078",
    source="torch.nn.GRU",
    deviations=(
        "the reset gate acts after the product with the recurrent weights, as cuDNN and PyTorch have it, not before",
        "two bias vectors per gate, as cuDNN has them",
    ),
    channel=None,
    residual="plain",
    norm="none",
    embedding="unit",
    depth=2,
)
class GRU(Mixer):
    """Stacked GRU layers without residuals or norms.

    State: `h` (B, D).
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(self, context: LayerContext) -> None:
        super().__init__(context)
        self.gru = nn.GRU(context.width, context.width, batch_first=True)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        y, after = rnn.run(self.gru, x, mask, None if state is None else (state["h"],))
        return y, None if state is None else {"h": after[0]}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {"h": torch.zeros(batch, self.gru.hidden_size, device=device, dtype=dtype)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """Input weights Xavier, recurrent weights orthogonal per gate, biases zero."""
        rnn.initialise(self.gru)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """Weight decay on both matrices."""
        return rnn.decaying("gru")
