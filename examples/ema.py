"""An architecture of one's own: every channel keeps an exponential moving average.

h_t = a h_{t-1} + (1 - a) x_t,    a = sigmoid(w)

zoobench check ema --plugin examples/ema.py      # does it keep the contract?
zoobench run examples/ema.yaml --trust           # how does it compare?
"""

import torch
from torch import Tensor, nn

from zoo import LayerContext, Mixer, State, Traits, register
from zoo.ops.diagonal_scan import scan


@register("ema", paper="none: an example")
class Ema(Mixer):
    """An exponential moving average per channel, then a linear layer. The state is h.

    Args:
        octaves: time constants go from 1 to 2^octaves steps.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(self, context: LayerContext, *, octaves: float = 8.0) -> None:
        super().__init__(context)
        if octaves <= 0:
            raise ValueError(f"ema: octaves must be positive, got {octaves}")
        self.w = nn.Parameter(torch.linspace(0, octaves, context.width) * torch.tensor(2.0).log())
        self.out = nn.Linear(context.width, context.width, bias=False)

    def forward(
        self, x: Tensor, *, mask: Tensor | None = None, state: State | None = None
    ) -> tuple[Tensor, State | None]:
        a = torch.sigmoid(self.w).expand(x.shape)  # (B, T, D)
        b = (1 - a) * x
        if mask is not None:  # a padded step leaves the state alone: decay 1, input 0
            a = a.masked_fill(~mask[..., None], 1)
            b = b.masked_fill(~mask[..., None], 0)
        h = scan(a, b, None if state is None else state["h"])
        return self.out(h.to(x.dtype)), None if state is None else {"h": h[:, -1]}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        wide = torch.promote_types(dtype, torch.float32)
        return {"h": torch.zeros(batch, len(self.w), device=device, dtype=wide)}
