"""Long short-term memory (Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber and Cummins 2000).

    i, f, g, o = σ, σ, tanh, σ of (W_i x_t + b_i + W_h h_{t−1} + b_h)
    c_t = f ⊙ c_{t−1} + i ⊙ g,    h_t = o ⊙ tanh(c_t)

torch's fused kernel computes it. The state is h and c: 2·D numbers per layer, whatever the length.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.contract import LayerContext, Mixer, ParamOverride, State, Traits
from zoo.ops.kernel_log import log_kernel


class LSTM(Mixer):
    """One LSTM layer of D units."""

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(self, context: LayerContext, *, forget_bias: float = 1.0) -> None:
        super().__init__(context)
        self.forget_bias = forget_bias
        self.lstm = nn.LSTM(context.width, context.width, batch_first=True)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        log_kernel("lstm", "torch")
        if state is None:
            return self.lstm(x)[0], None
        before = state["h"], state["c"]
        h, c = before[0].to(x.dtype)[None], before[1].to(x.dtype)[None]
        if mask is None:
            y, last = self.lstm(x, (h, c))
        else:
            y, last = packed(self.lstm, x, mask, (h, c))
        return y, {name: after[0].to(old.dtype) for name, after, old in zip("hc", last, before, strict=True)}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        zeros = torch.zeros(batch, self.lstm.hidden_size, device=device, dtype=dtype)
        return {"h": zeros, "c": zeros.clone()}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """Input weights Xavier, recurrent weights orthogonal per gate, forget bias 1 (Jozefowicz et al. 2015)."""
        D = self.lstm.hidden_size
        own = dict(self.lstm.named_parameters())
        nn.init.xavier_uniform_(own["weight_ih_l0"])
        for gate in own["weight_hh_l0"].data.split(D):
            nn.init.orthogonal_(gate)
        nn.init.zeros_(own["bias_ih_l0"])
        nn.init.zeros_(own["bias_hh_l0"])
        with torch.no_grad():
            own["bias_ih_l0"][D : 2 * D] = self.forget_bias

    def param_overrides(self) -> dict[str, ParamOverride]:
        return {f"lstm.{name}": ParamOverride(decay=True) for name in ("weight_ih_l0", "weight_hh_l0")}


def packed(
    rnn: nn.Module, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"], hidden: tuple[Tensor, ...]
) -> tuple[Float[Tensor, "B T D"], tuple[Tensor, ...]]:
    """Outputs of one of torch's recurrent layers, and its state at each row's last valid step: rows run packed.

    A row without a valid step keeps its state. Each tensor of `hidden` is (1, B, D).
    """
    lengths = mask.sum(1)
    rows = nn.utils.rnn.pack_padded_sequence(x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
    out, last = rnn(rows, hidden if len(hidden) > 1 else hidden[0])
    y = nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])[0]
    some = (lengths > 0)[:, None]
    after = last if len(hidden) > 1 else (last,)
    return y, tuple(torch.where(some, new, old) for new, old in zip(after, hidden, strict=True))
