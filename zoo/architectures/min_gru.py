"""minGRU: a GRU whose gates do not see the state, so that it trains in parallel (Feng et al. 2024, arXiv:2410.01201).

    z_t = σ(W_z x_t + b_z),    h̃_t = g(W_h x_t + b_h),    h_t = (1 − z_t) ⊙ h_{t−1} + z_t ⊙ h̃_t

with g(u) = u + ½ for u ≥ 0 and σ(u) below, which keeps h positive (appendix B.2.1), or g the identity (section 3.1.3).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mixer, State, Traits
from zoo.layers.initialisation import fan_in_, residual_scale
from zoo.ops.diagonal_scan import scan
from zoo.ops.precision import at_least_fp32


@register(
    family="recurrent",
    paper="Feng et al. 2024, Were RNNs All We Needed?, arXiv:2410.01201",
    source="no official code; https://github.com/lucidrains/minGRU-pytorch",
    deviations=(
        "the scan runs on (1 − z) and z h̃ themselves, which is exact; the paper's runs in log space",
        "Pre-LN blocks with an MLP; the paper's language models add a convolution of width 4 before the minGRU",
        "the state starts at zero; the paper's log-space code needs a positive start, g(0) = ½, where one is given",
        "weights start at N(0, 1/fan_in), the projection into the residual stream scaled by 1/√(2·depth)",
    ),
)
class MinGRU(Mixer):
    """minGRU: gates that see the input only, so that the recurrence is a scan; Pre-LN blocks with an MLP.

    `expand`·D units and a projection back to D. State: `h` (B, expand·D).

    Args:
        candidate: g, "positive" as the paper trains it, or "linear".
        bias: of the gates; lucidrains has none.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(
        self,
        context: LayerContext,
        *,
        expand: float = 1.0,
        candidate: Literal["positive", "linear"] = "positive",
        bias: bool = True,
    ) -> None:
        super().__init__(context)
        self.units = round(expand * context.width)
        if self.units < 1:
            raise ValueError(f"min_gru: expand {expand} leaves no unit at width {context.width}")
        self.candidate = candidate
        self.hidden_and_gate = nn.Linear(context.width, 2 * self.units, bias=bias)
        self.out = nn.Linear(self.units, context.width, bias=False)

    def forward(
        self, x: Float[Tensor, "B T D"], *, mask: Bool[Tensor, "B T"] | None = None, state: State | None = None
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        hidden, gate = self.hidden_and_gate(x).chunk(2, dim=-1)
        z, h = torch.sigmoid(at_least_fp32(gate)), at_least_fp32(hidden)
        if self.candidate == "positive":
            h = torch.where(h >= 0, h + 0.5, torch.sigmoid(h))
        if mask is not None:
            z, h = z.masked_fill(~mask[..., None], 0), h.masked_fill(~mask[..., None], 0)
        h = scan(1 - z, z * h, None if state is None else state["h"].to(h.dtype))
        new = None if state is None else {"h": h[:, -1].to(state["h"].dtype)}
        return self.out(h.to(x.dtype)), new

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        wider = torch.promote_types(dtype, torch.float32)
        return {"h": torch.zeros(batch, self.units, device=device, dtype=wider)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 1/fan_in), the projection into the residual stream scaled by 1/√(2·depth); biases zero."""
        fan_in_(self.hidden_and_gate)
        fan_in_(self.out, residual_scale(depth))
