"""Attention of a decoder over an encoder's outputs (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3).

    head_h = softmax(Q_h K_hᵀ / √d_h) V_h    with Q = x W_Q and K, V = m W_K, m W_V of the encoder's outputs m

m is "memory" in `shared_context`, beside "memory_mask", which is true where it is valid.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.contract import LayerContext, Mixer, State, Traits
from zoo.layers.initialisation import fan_in_, residual_scale
from zoo.layers.linear import Linear
from zoo.layers.multi_head import head_width
from zoo.ops.attention import attend


class CrossAttention(Mixer):
    """Multi-head attention over a memory. Each step reads the memory alone, so it is causal whatever the memory is."""

    traits = Traits(causal="strict", bidirectional=True, resumable=True)
    feeds_matmul_only = True
    shared_context = True

    def __init__(self, context: LayerContext, *, heads: int = 4, bias: bool = True) -> None:
        super().__init__(context)
        self.heads, self.gain = heads, context.gain
        self.head_width = head_width("cross_attention", context.width, heads)
        self.q = Linear(context.width, context.width, bias=bias)
        self.kv = Linear(context.width, 2 * context.width, bias=bias)
        self.out = Linear(context.width, context.width, bias=bias)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
        shared_context: dict[str, Any] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        if not shared_context or "memory" not in shared_context:
            raise ValueError("cross_attention: there is no memory to attend to")
        B, T, D = x.shape
        q = self.q(x).view(B, T, self.heads, self.head_width).transpose(1, 2)
        kv = self.kv(shared_context["memory"]).view(B, -1, 2, self.heads, self.head_width)
        k, v = kv.permute(2, 0, 3, 1, 4)
        valid: Tensor | None = shared_context.get("memory_mask")
        if valid is not None:
            # A row without any valid source step looks at all of it, rather than at nothing, and sees zeros.
            k, v = (z.masked_fill(~valid[:, None, :, None], 0) for z in (k, v))
            valid = (valid | ~valid.any(1, keepdim=True))[:, None, None, :].expand(-1, -1, T, -1)
        y = attend(q, k, v, visible=valid)
        return self.out(y.transpose(1, 2).reshape(B, T, D)), state

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """As `Attention.reset_parameters`."""
        fan_in_(self.q)
        fan_in_(self.kv)
        fan_in_(self.out, self.gain or residual_scale(depth))
        if self.gain is not None:
            with torch.no_grad():
                self.kv.weight[self.kv.out_features // 2 :] *= self.gain
