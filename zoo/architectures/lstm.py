"""Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber and Cummins 2000).

    i, f, g, o = σ, σ, tanh, σ of (W_i x_t + b_i + W_h h_{t−1} + b_h)
    c_t = f ⊙ c_{t−1} + i ⊙ g,    h_t = o ⊙ tanh(c_t)

The state is h and c: 2·D numbers per layer, whatever the length.
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
    paper="Hochreiter and Schmidhuber 1997, Long Short-Term Memory, Neural Computation 9(8)",
    source="torch.nn.LSTM",
    deviations=("two bias vectors per gate, as cuDNN has them", "input, forget and output gates; no peepholes"),
    channel=None,
    residual="plain",
    norm="none",
    embedding="unit",
    depth=2,
)
class LSTM(Mixer):
    """Stacked LSTM layers without residuals or norms, as language models used them before transformers.

    State: `h` and `c` (B, D).
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(self, context: LayerContext, *, forget_bias: float = 1.0) -> None:
        super().__init__(context)
        self.forget_bias = forget_bias
        self.lstm = nn.LSTM(context.width, context.width, batch_first=True)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        y, after = rnn.run(self.lstm, x, mask, None if state is None else (state["h"], state["c"]))
        return y, None if state is None else dict(zip("hc", after, strict=True))

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        zeros = torch.zeros(batch, self.lstm.hidden_size, device=device, dtype=dtype)
        return {"h": zeros, "c": zeros.clone()}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """Input weights Xavier, recurrent weights orthogonal per gate, forget bias 1 (Jozefowicz et al. 2015)."""
        D = self.lstm.hidden_size
        rnn.initialise(self.lstm)
        with torch.no_grad():
            self.lstm.get_parameter("bias_ih_l0")[D : 2 * D] = self.forget_bias

    def param_overrides(self) -> dict[str, ParamOverride]:
        """Weight decay on both matrices."""
        return rnn.decaying("lstm")
