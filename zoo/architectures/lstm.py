"""Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber and Cummins 2000).

    i = σ(W_i x_t + b_i + U_i h_{t−1} + c_i),    f = σ(W_f x_t + b_f + U_f h_{t−1} + c_f)
    g = tanh(W_g x_t + b_g + U_g h_{t−1} + c_g),    o = σ(W_o x_t + b_o + U_o h_{t−1} + c_o)
    c_t = f ⊙ c_{t−1} + i ⊙ g,    h_t = o ⊙ tanh(c_t)

The state is h and c: 2·D numbers per layer, whatever the length.
"""

import torch
from torch import nn

from zoo.architectures import register
from zoo.layers.rnn import Recurrent


@register(
    family="recurrent",
    paper="Hochreiter and Schmidhuber 1997, Long Short-Term Memory, Neural Computation 9(8)",
    source="torch.nn.LSTM",
    deviations=("two bias vectors per gate, as cuDNN has them", "input, forget and output gates; no peepholes"),
    channel=None,
    residual="plain",
    norm="none",
    embedding="unit",
    depth=2,
)
class LSTM(Recurrent):
    """Stacked LSTM layers without residuals or norms, as language models used them before transformers."""

    cell, name, states = nn.LSTM, "lstm", "hc"

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """Input weights Xavier, recurrent weights orthogonal per gate, forget bias 1 (Jozefowicz et al. 2015)."""
        super().reset_parameters(layer=layer, depth=depth)
        D = self.rnn.hidden_size
        self.rnn.get_parameter("bias_ih_l0")[D : 2 * D] = 1.0
