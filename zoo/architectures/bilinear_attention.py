"""Attention whose queries and keys are merged into one D×D form per head.

    head_h = softmax(x W_h xᵀ / √D) V_h,    y = concat(head_1, ..., head_H) W_O

Multi-head attention scores x_tᵀ (W_Q W_Kᵀ) x_s, a form of rank d_h; here W_h is any D×D matrix (Elhage et al. 2021, A
Mathematical Framework for Transformer Circuits, "QK circuit"), at H·D² parameters in place of 2·D². Decoding keeps
every past input and value: a state of 2·T·D numbers per layer.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, State, Traits
from zoo.layers.attention import key_steps, remember, steps, visible
from zoo.layers.linear import Linear, branch_
from zoo.layers.positions import relative
from zoo.layers.ranges import head_width
from zoo.layers.tensors import merge_heads, split_heads
from zoo.ops.attention import attend


@register(
    family="transformers",
    paper="Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (the QK circuit, at full rank)",
    source="no official code; equal to attention where W_h = W_Q W_Kᵀ",
    deviations=(
        "scores are scaled by 1/√D, the width of what is multiplied; attention has 1/√d_h",
        "positions, GELU, biases and initialisation are pre_ln's",
    ),
    positions="learned",
)
class BilinearAttention(Mixer):
    """Transformer whose queries and keys are merged: one D×D form for each head scores pairs of inputs.

    Causal or bidirectional. Rotations turn the input itself, all D features at once.
    """

    traits = Traits(causal="strict", bidirectional=True, resumable=True)
    relative = ("rotation", "bias")

    def __init__(self, context: LayerContext, *, heads: int = 4) -> None:
        super().__init__(context)
        self.heads, self.causal, self.gain = heads, context.causal, context.gain
        self.head_width = head_width("bilinear_attention", context.width, heads)
        self.positions = relative(context.positions, heads=heads, head_width=context.width, causal=context.causal)
        self.form = nn.Linear(context.width, heads * context.width, bias=False)
        self.value = Linear(context.width, context.width)
        self.out = Linear(context.width, context.width)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        T = x.shape[1]
        q, v = split_heads(self.form(x), self.heads), split_heads(self.value(x), self.heads)
        k = x.to(v.dtype)[:, None]  # one for all heads
        now = steps(state, T, x.device)
        q, k = self.positions.rotate_both(q, k, now)
        k, v, valid, new = remember(state, k, v, mask)
        if state is not None:
            q = q.to(k.dtype)
        bias = self.positions.bias(now, key_steps(valid, k))
        y = attend(q, k, v, visible=visible(valid, T), causal=self.causal, bias=bias)
        return self.out(merge_heads(y)), new

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        D = self.out.in_features
        k = torch.empty(batch, 1, 0, D, device=device, dtype=dtype)
        return {"k": k, "v": k.new_empty(batch, self.heads, 0, self.head_width)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        branch_(self.form, values=self.value, out=self.out, depth=depth, gain=self.gain)
