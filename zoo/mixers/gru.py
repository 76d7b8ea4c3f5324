"""Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078; reset after the product, as in cuDNN and PyTorch).

    r, z = σ of (W x_t + b + U h_{t−1} + c)
    n = tanh(W_n x_t + b_n + r ⊙ (U_n h_{t−1} + c_n)),    h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}

torch's fused kernel computes it. The state is h: D numbers per layer, whatever the length.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.contract import LayerContext, Mixer, ParamOverride, State, Traits
from zoo.mixers.lstm import packed
from zoo.ops.kernel_log import log_kernel


class GRU(Mixer):
    """One GRU layer of D units."""

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(self, context: LayerContext) -> None:
        super().__init__(context)
        self.gru = nn.GRU(context.width, context.width, batch_first=True)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        log_kernel("gru", "torch")
        if state is None:
            return self.gru(x)[0], None
        h = state["h"].to(x.dtype)[None]
        if mask is None:
            y, last = self.gru(x, h)
        else:
            y, (last,) = packed(self.gru, x, mask, (h,))
        return y, {"h": last[0].to(state["h"].dtype)}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {"h": torch.zeros(batch, self.gru.hidden_size, device=device, dtype=dtype)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """Input weights Xavier, recurrent weights orthogonal per gate, biases zero, as for the LSTM."""
        own = dict(self.gru.named_parameters())
        nn.init.xavier_uniform_(own["weight_ih_l0"])
        for gate in own["weight_hh_l0"].data.split(self.gru.hidden_size):
            nn.init.orthogonal_(gate)
        nn.init.zeros_(own["bias_ih_l0"])
        nn.init.zeros_(own["bias_hh_l0"])

    def param_overrides(self) -> dict[str, ParamOverride]:
        return {f"gru.{name}": ParamOverride(decay=True) for name in ("weight_ih_l0", "weight_hh_l0")}
