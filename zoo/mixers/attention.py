"""Multi-head softmax attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

    head_h = softmax(Q_h K_hᵀ / √d_h) V_h,    y = concat(head_1, ..., head_H) W_O

with Q, K, V = x W_Q, x W_K, x W_V. Decoding keeps every past key and value: a state of 2·T·D numbers per layer.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.contract import Mixer, Site, State, Traits
from zoo.initialise import fan_in_, residual_scale
from zoo.ops.attention import attend


class Attention(Mixer):
    """Multi-head attention, causal or bidirectional."""

    traits = Traits(causal="strict", bidirectional=True, resumable=True)

    def __init__(self, site: Site, *, heads: int = 4, bias: bool = True) -> None:
        super().__init__(site)
        if site.width % heads:
            raise ValueError(f"attention: width {site.width} does not divide into {heads} heads")
        self.heads = heads
        self.causal = site.causal
        self.qkv = nn.Linear(site.width, 3 * site.width, bias=bias)
        self.out = nn.Linear(site.width, site.width, bias=bias)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        B, T, D = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)  # each (B, H, T, D/H)
        new: State | None = None
        if state is not None:
            past_k, past_v = state["k"], state["v"]
            k = torch.cat([past_k, k.to(past_k.dtype)], dim=2)
            v = torch.cat([past_v, v.to(past_v.dtype)], dim=2)
            new = {"k": k, "v": v}
            if mask is not None or "valid" in state:
                before = state.get("valid", x.new_ones(B, past_k.shape[2], dtype=torch.bool))
                now = x.new_ones(B, T, dtype=torch.bool) if mask is None else mask
                new["valid"] = mask = torch.cat([before, now], dim=1)
            q = q.to(k.dtype)
        y = attend(q, k, v, visible=self._visible(mask, T), causal=self.causal)
        return self.out(y.transpose(1, 2).reshape(B, T, D)), new

    @staticmethod
    def _visible(mask: Bool[Tensor, "B S"] | None, T: int) -> Bool[Tensor, "B 1 T S"] | None:
        """Valid keys only; every query sees at least itself, so that a padded row has no empty softmax."""
        if mask is None:
            return None
        S = mask.shape[1]
        itself = torch.ones(T, S, dtype=torch.bool, device=mask.device).triu(S - T).tril(S - T)
        return mask[:, None, None, :] | itself

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        D = self.out.in_features
        empty = torch.empty(batch, self.heads, 0, D // self.heads, device=device, dtype=dtype)
        return {"k": empty, "v": empty}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 1/fan_in), the projection into the residual stream scaled by 1/√(2·depth); biases zero."""
        fan_in_(self.qkv)
        fan_in_(self.out, residual_scale(depth))
