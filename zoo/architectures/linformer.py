"""Linformer: attention over k learned summaries of the keys and values (Wang et al. 2020, arXiv:2006.04768, eq. 7).

    head_h = softmax(Q_h (E_h K_h)ᵀ / √d_h) F_h V_h,    y = concat(head_1, ..., head_H) W_O

with E, F of k rows over n = `LayerContext.length` steps; a shorter sequence uses their first T columns, as if padded.
The biases of keys and values are added to the summaries, as in the official code, which applies E and F to the layer's
input. Every summary sees the whole sequence, so this is never causal.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, ParamOverride, State, Traits
from zoo.layers.linear import Linear, branch_
from zoo.layers.multi_head import MultiHead
from zoo.layers.tensors import merge_heads, split_heads, zero_padding
from zoo.ops.attention import attend


@register(
    family="efficient attention",
    paper="Wang et al. 2020, Linformer: Self-Attention with Linear Complexity, arXiv:2006.04768",
    source="https://github.com/facebookresearch/fairseq (examples/linformer)",
    deviations=(
        "layerwise sharing (one E for all layers) is not offered: a mixer owns its parameters",
        "k is 64 by default, or the length where that is less; the paper uses 128 and 256 for n = 512",
        "residual type, GELU and initialisation (but for E and F, which follow the official code) are pre_ln's",
    ),
    positions="learned",
)
class Linformer(MultiHead):
    """Transformer that attends to k learned summaries of its keys and values; never causal.

    Args:
        k: summaries per head, at most `context.length`; None for 64, or the whole length where that is less.
        sharing: "none" has an E and an F for each head; "headwise" one E and one F for all heads, the default as in the
            official code; "key_value" one matrix for both and for all heads (section 4).
    """

    traits = Traits(causal="no", bidirectional=True, resumable=False, length="max")
    feeds_matmul_only = True
    relative = ("rotation",)

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        k: int | None = None,
        sharing: Literal["none", "headwise", "key_value"] = "headwise",
    ) -> None:
        super().__init__(context, "linformer", heads)
        k = min(64, context.length) if k is None else k
        if not 1 <= k <= context.length:
            raise ValueError(f"linformer: k must lie in 1 .. {context.length}, the sequence length; got {k}")
        self.qkv = Linear(context.width, 3 * context.width)
        self.out = Linear(context.width, context.width)
        shape = (heads if sharing == "none" else 1, k, context.length)
        self.E = nn.Parameter(torch.empty(shape))
        self.F = None if sharing == "key_value" else nn.Parameter(torch.empty(shape))
        self._reset_projections()

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        T = x.shape[1]
        if self.E.shape[-1] < T:
            raise ValueError(f"linformer: {T} steps, but it was built for at most {self.E.shape[-1]}")
        qkv = nn.functional.linear(x, self.qkv.weight)
        q, k, v = split_heads(qkv, 3 * self.heads).chunk(3, dim=1)
        b_q, b_k, b_v = self.qkv.bias.to(q.dtype).view(3, self.heads, 1, -1)
        q, k = self.positions.rotate_both(q + b_q, k, torch.arange(T, device=x.device)[None])
        k, v = (zero_padding(z, mask, 2) for z in (k, v))
        E, F = self.E[..., :T], (self.E if self.F is None else self.F)[..., :T]
        y = attend(q, E @ k + b_k, F @ v + b_v)
        return self.out(merge_heads(y)), None

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `branch_`; E and F as below."""
        branch_(self.qkv, out=self.out, depth=depth)
        self._reset_projections()

    def _reset_projections(self) -> None:
        """E and F: Xavier uniform with gain 1/√2 for each (k, n) matrix, as in the official code."""
        k, n = self.E.shape[1:]
        for matrix in (self.E, self.F):
            if matrix is not None:
                nn.init.uniform_(matrix, -((3 / (k + n)) ** 0.5), (3 / (k + n)) ** 0.5)

    def param_overrides(self) -> dict[str, ParamOverride]:
        """E and F are weights of linear layers (over time), so they decay."""
        return {name: ParamOverride(decay=True) for name in ("E", "F") if getattr(self, name) is not None}
