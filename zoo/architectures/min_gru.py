"""minGRU: a GRU whose gates do not see the state, so that it trains in parallel (Feng et al. 2024, arXiv:2410.01201).

    z_t = σ(W_z x_t + b_z),    h̃_t = g(W_h x_t + b_h),    h_t = (1 − z_t) ⊙ h_{t−1} + z_t ⊙ h̃_t

with g(u) = u + ½ for u ≥ 0 and σ(u) below, which keeps h positive (appendix B.2.1).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, State, Traits
from zoo.layers.linear import branch_
from zoo.layers.ranges import hidden_units
from zoo.layers.tensors import in_fp32, zero_padding, zeros_fp32
from zoo.ops.diagonal_scan import scan


@register(
    family="recurrent",
    paper="Feng et al. 2024, Were RNNs All We Needed?, arXiv:2410.01201",
    source="no official code; https://github.com/lucidrains/minGRU-pytorch",
    deviations=(
        "the scan runs on (1 − z) and z h̃ themselves, which is exact; the paper's runs in log space",
        "Pre-LN blocks with an MLP; the paper's language models add a convolution of width 4 before the minGRU",
        "g is the paper's as it trains in log space; the identity of section 3.1.3 is not offered",
        "the state starts at zero; the paper's log-space code needs a positive start, g(0) = ½, where one is given",
        "weights start at N(0, 1/fan_in), the projection into the residual stream scaled by 1/√(2·depth)",
    ),
)
class MinGRU(Mixer):
    """minGRU: gates that see the input only, so that the recurrence is a scan; Pre-LN blocks with an MLP.

    `expand`·D units and a projection back to D. State: `h` (B, expand·D).

    Args:
        bias: of the gates; lucidrains has none.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(self, context: LayerContext, *, expand: float = 1.0, bias: bool = True) -> None:
        super().__init__(context)
        self.units = hidden_units("min_gru", expand, context)
        self.hidden_and_gate = nn.Linear(context.width, 2 * self.units, bias=bias)
        self.out = nn.Linear(self.units, context.width, bias=False)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        hidden, gate = self.hidden_and_gate(x).chunk(2, dim=-1)
        h = self._scan(hidden, gate, mask, None if state is None else state["h"])
        return self.out(h.to(x.dtype)), None if state is None else {"h": h[:, -1]}

    @in_fp32
    def _scan(
        self, h: Float[Tensor, "B T U"], gate: Float[Tensor, "B T U"], mask: Mask | None, h0: Tensor | None
    ) -> Float[Tensor, "B T U"]:
        """h_t from what both linear layers give."""
        h = torch.where(h >= 0, h + 0.5, torch.sigmoid(h))
        z, h = zero_padding(torch.sigmoid(gate), mask), zero_padding(h, mask)
        return scan(1 - z, z * h, h0)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {"h": zeros_fp32(batch, self.units, device=device, dtype=dtype)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        branch_(self.hidden_and_gate, out=self.out, depth=depth)
