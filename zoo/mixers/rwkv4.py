"""RWKV-4 (Peng et al. 2023, arXiv:2305.13048, section 3; official code BlinkDL/RWKV-LM, RWKV-v4/src/model.py).

Both sublayers first mix each input with the one before it (the token shift), x^μ_t = μ ⊙ x_t + (1 − μ) ⊙ x_{t−1}:

    time mixing      r, k, v = x^{μr} W_r, x^{μk} W_k, x^{μv} W_v,    y = (σ(r) ⊙ wkv(w, u, k, v)) W_o
    channel mixing   r, k = x^{μr} W_r, x^{μk} W_k,                   y = σ(r) ⊙ (max(k, 0)² W_v)

with w = −e^{time_decay} and u = time_first. See `zoo.ops.wkv4` for wkv.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.contract import LayerContext, Mixer, ParamOverride, State, Traits
from zoo.layers.mlp import hidden_units
from zoo.ops.wkv4 import init_state, wkv


class TimeMix(Mixer):
    """Time mixing. State: the last input `x` (B, D), and p, q, o of wkv (B, D) in float32 at least."""

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def __init__(self, context: LayerContext) -> None:
        super().__init__(context)
        C = context.width
        for name in ("time_decay", "time_first", "time_mix_k", "time_mix_v", "time_mix_r"):
            self.register_parameter(name, nn.Parameter(torch.empty(C)))
        for name in ("key", "value", "receptance", "output"):
            self.add_module(name, nn.Linear(C, C, bias=False))
        self.reset_parameters(layer=context.layer, depth=context.depth)

    time_decay: nn.Parameter
    time_first: nn.Parameter
    time_mix_k: nn.Parameter
    time_mix_v: nn.Parameter
    time_mix_r: nn.Parameter
    key: nn.Linear
    value: nn.Linear
    receptance: nn.Linear
    output: nn.Linear

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        previous, last = shift(x, mask, state)
        k = self.key(torch.lerp(previous, x, self.time_mix_k.to(x.dtype)))
        v = self.value(torch.lerp(previous, x, self.time_mix_v.to(x.dtype)))
        r = self.receptance(torch.lerp(previous, x, self.time_mix_r.to(x.dtype)))
        y, after = wkv(-torch.exp(self.time_decay), self.time_first, k, v, state, mask)
        return self.output(torch.sigmoid(r) * y), None if state is None else {"x": last, **after}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        C, wide = len(self.time_decay), torch.promote_types(dtype, torch.float32)
        x = torch.zeros(batch, C, device=device, dtype=dtype)
        return {"x": x, **init_state(batch, C, device=device, dtype=wide)}

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
        scale = {"time_decay": 2.0, "time_first": 3.0}
        return {
            name: ParamOverride(lr_scale=scale.get(name, 1.0), decay=False)
            for name, _ in self.named_parameters(recurse=False)
        }


class ChannelMix(Mixer):
    """Channel mixing, `expand` times as wide inside. State: the last input `x` (B, D).

    RWKV-5 and 6 have the same, with mixing vectors of another name and shape, and W_k that start smaller.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    mixes: ClassVar[tuple[str, str]] = ("time_mix_k", "time_mix_r")
    """The mixing vectors of k and r."""
    axes: ClassVar[tuple[int, ...]] = ()
    """What stands before their channels in their shape."""

    def __init__(self, context: LayerContext, *, expand: float = 4.0) -> None:
        super().__init__(context)
        C, hidden = context.width, hidden_units("rwkv channel mixing", expand, context)
        for name in self.mixes:
            self.register_parameter(name, nn.Parameter(torch.empty(*self.axes, C)))
        self.key = nn.Linear(C, hidden, bias=False)
        self.receptance = nn.Linear(C, C, bias=False)
        self.value = nn.Linear(hidden, C, bias=False)
        self.reset_parameters(layer=context.layer, depth=context.depth)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        previous, last = shift(x, mask, state)
        k, r = (self.mixed(previous, x, getattr(self, name).to(x.dtype)) for name in self.mixes)
        y = torch.sigmoid(self.receptance(r)) * self.value(torch.relu(self.key(k)).square())
        return y, None if state is None else {"x": last}

    @staticmethod
    def mixed(previous: Tensor, x: Tensor, mix: Tensor) -> Tensor:
        """The token shift: `mix` weighs the present input."""
        return torch.lerp(previous, x, mix)

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {"x": torch.zeros(batch, self.key.in_features, device=device, dtype=dtype)}

    @torch.no_grad()
    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """As `RWKV_ChannelMix` and `RWKV_Init`: W_k orthogonal, the other two matrices zero; see `key_gain`."""
        C = self.key.in_features
        for name in self.mixes:
            mix = getattr(self, name)
            mix.copy_((torch.arange(C, device=mix.device) / C) ** (1 - layer / depth))
        nn.init.orthogonal_(self.key.weight, gain=self.key_gain())
        for zero in (self.receptance, self.value):
            nn.init.zeros_(zero.weight)

    def key_gain(self) -> float:
        """√(out/in) where W_k widens."""
        return max(self.key.out_features / self.key.in_features, 1) ** 0.5

    def param_overrides(self) -> dict[str, ParamOverride]:
        """No weight decay on the mixing vectors."""
        return dict.fromkeys(self.mixes, ParamOverride(decay=False))


def shift(
    x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"] | None, state: State | None
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D"]]:
    """The input before each step (zero before the first), and the last valid one. Padding must stand on the right."""
    first = torch.zeros_like(x[:, 0]) if state is None else state["x"]
    line = torch.cat([first[:, None].to(x.dtype), x], dim=1)
    if mask is None:
        last = line[:, -1]
    else:
        last = line.gather(1, mask.sum(1)[:, None, None].expand(-1, 1, x.shape[2])).squeeze(1)
    return line[:, :-1], last.to(first.dtype)
