"""RWKV-4 (Peng et al. 2023, arXiv:2305.13048, section 3).

Both sublayers first mix each input with the one before it (the token shift), x^μ_t = μ ⊙ x_t + (1 − μ) ⊙ x_{t−1}:

    time mixing      r, k, v = x^{μr} W_r, x^{μk} W_k, x^{μv} W_v,    y = (σ(r) ⊙ wkv) W_o
    wkv_t = (Σ_{s < t} e^{(t−1−s) w + k_s} v_s + e^{u + k_t} v_t) / (Σ_{s < t} e^{(t−1−s) w + k_s} + e^{u + k_t})
    channel mixing   r, k = x^{μr} W_r, x^{μk} W_k,                   y = σ(r) ⊙ (max(k, 0)² W_v)

with w = −e^{time_decay} and u = time_first. See `zoo.ops.wkv4`.
"""

import math
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, ParamOverride, Part, Recipe, State, Traits
from zoo.layers.rwkv import ChannelMixing, param_overrides, shift
from zoo.layers.tensors import zeros_fp32
from zoo.ops.wkv4 import WKVState, wkv
from zoo.ops.wkv4.naive import LOWEST


class TimeMix(Mixer):
    """Time mixing. State: the last input `x` (B, D), and p, q and o of wkv (B, D)."""

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(self, context: LayerContext) -> None:
        super().__init__(context)
        C = context.width
        self.time_decay, self.time_first = (nn.Parameter(torch.empty(C)) for _ in range(2))
        self.time_mix_k, self.time_mix_v, self.time_mix_r = (nn.Parameter(torch.empty(C)) for _ in range(3))
        self.key, self.value, self.receptance, self.output = (nn.Linear(C, C, bias=False) for _ in range(4))
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        previous, last = shift(x, mask, state)
        k = self.key(torch.lerp(previous, x, self.time_mix_k.to(x.dtype)))
        v = self.value(torch.lerp(previous, x, self.time_mix_v.to(x.dtype)))
        r = self.receptance(torch.lerp(previous, x, self.time_mix_r.to(x.dtype)))
        y, after = wkv(-torch.exp(self.time_decay), self.time_first, k, v, cast("WKVState | None", state), mask)
        return self.output(torch.sigmoid(r) * y), None if state is None else {"x": last, **after}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        x = torch.zeros(batch, len(self.time_decay), device=device, dtype=dtype)
        p = zeros_fp32(*x.shape, device=device, dtype=dtype)
        return {"x": x, "p": p, "q": p.clone(), "o": torch.full_like(p, LOWEST)}

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """As `RWKV_TimeMix` and `RWKV_Init`: ramps over channels and depth, W_v orthogonal, the other matrices zero."""
        C = len(self.time_decay)
        i = torch.arange(C, device=self.time_decay.device)
        up, down = layer / max(depth - 1, 1), 1 - layer / depth  # 0 to 1, and 1 to almost 0
        self.time_decay.copy_(-5 + 8 * (i / max(C - 1, 1)) ** (0.7 + 1.3 * up))
        self.time_first.copy_(math.log(0.3) + 0.5 * ((i + 1) % 3 - 1))
        self.time_mix_k.copy_((i / C) ** down)
        self.time_mix_v.copy_((i / C) ** down + 0.3 * up)
        self.time_mix_r.copy_((i / C) ** (0.5 * down))
        nn.init.orthogonal_(self.value.weight)
        for zero in (self.key, self.receptance, self.output):
            nn.init.zeros_(zero.weight)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """Twice the learning rate on the decay, three times on the bonus; no weight decay on any vector."""
        return param_overrides(self, time_decay=2.0, time_first=3.0)


class ChannelMix(ChannelMixing):
    """Channel mixing, whose mixing vectors weigh the present input."""

    widening_gain = True


@register(
    family="RWKV",
    paper="Peng et al. 2023, RWKV: Reinventing RNNs for the Transformer Era, arXiv:2305.13048, sections 3 and 4",
    source="https://github.com/BlinkDL/RWKV-LM (RWKV-v4/src/model.py, RWKV-v4/cuda/wkv_cuda.cu)",
    deviations=(
        "no head-QK term (a copying attention the official code can add to the logits)",
        "at depth 1 the ramps over depth take layer 0's values, where the official code divides by zero",
    ),
)
def rwkv4(*, expand: float = 4.0) -> Recipe:
    """RWKV-4: attention with exponentially decaying weights in time, a gated squared ReLU in channels, token shift."""
    return Recipe(Part(TimeMix), channel=Part(ChannelMix, expand=expand), embedding="rwkv4", head="rwkv4")
