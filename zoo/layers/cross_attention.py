"""Attention of a decoder over an encoder's outputs (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.3).

    head_h = softmax(Q_h K_hᵀ / √d_h) V_h    with Q = x W_Q and K, V = m W_K, m W_V of the encoder's outputs m

m is "memory" in `shared_context`, beside "memory_mask", which is true where it is valid.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.contract import LayerContext, Mask, Mixed, State, Traits
from zoo.layers.linear import Linear, branch_
from zoo.layers.multi_head import MultiHead
from zoo.layers.tensors import merge_heads, split_heads, zero_padding
from zoo.ops.attention import attend


class CrossAttention(MultiHead):
    """Multi-head attention over a memory. Each step reads the memory alone, so it is causal whatever the memory is."""

    traits = Traits(causal="strict", bidirectional=True, resumable=True)
    feeds_matmul_only = True
    shared_context = True

    def __init__(self, context: LayerContext, *, heads: int = 4, bias: bool = True) -> None:
        super().__init__(context, "cross_attention", heads)
        self.q = Linear(context.width, context.width, bias=bias)
        self.kv = Linear(context.width, 2 * context.width, bias=bias)
        self.out = Linear(context.width, context.width, bias=bias)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Mask | None = None,
        state: State | None = None,
        shared_context: dict[str, Any] | None = None,
    ) -> Mixed:
        if not shared_context or "memory" not in shared_context:
            raise ValueError("cross_attention: there is no memory to attend to")
        q = split_heads(self.q(x), self.heads)
        k, v = split_heads(self.kv(shared_context["memory"]), 2 * self.heads).chunk(2, dim=1)
        valid: Tensor | None = shared_context.get("memory_mask")
        if valid is not None:
            # A row without any valid source step looks at all of it, rather than at nothing, and sees zeros.
            k, v = zero_padding(k, valid, 2), zero_padding(v, valid, 2)
            valid = (valid | ~valid.any(1, keepdim=True))[:, None, None, :].expand(-1, -1, x.shape[1], -1)
        y = attend(q, k, v, visible=valid)
        return self.out(merge_heads(y)), state

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return {}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """As `Attention.reset_parameters`."""
        branch_(self.q, self.kv, out=self.out, depth=depth, gain=self.gain)
        if self.gain is not None:
            with torch.no_grad():
                self.kv.weight[self.kv.out_features // 2 :] *= self.gain
