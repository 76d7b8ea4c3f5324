"""Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078; reset after the product, as in cuDNN and PyTorch).

    r = σ(W_r x_t + b_r + U_r h_{t−1} + c_r),    z = σ(W_z x_t + b_z + U_z h_{t−1} + c_z)
    n = tanh(W_n x_t + b_n + r ⊙ (U_n h_{t−1} + c_n)),    h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}

The state is h: D numbers per layer, whatever the length.
"""

from torch import nn

from zoo.architectures import register
from zoo.layers.rnn import Recurrent


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
class GRU(Recurrent):
    """Stacked GRU layers without residuals or norms."""

    cell, name, states = nn.GRU, "gru", "h"
