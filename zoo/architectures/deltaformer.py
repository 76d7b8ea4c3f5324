"""DeltaFormer: attention whose values are corrected by a delta rule (Zhong et al. 2025, arXiv:2505.19488, section 4).

    u_t = v_t − β_t Σ_{j < t} softmax_{j < t}(q_t·k_j / √d) u_j,    β_t = x_t W_β + b_β
    y_t = Σ_{j ≤ t} softmax_j(q_t·k_j / √d) u_j W_o

per head of width d. What a step adds to the memory is its value less β_t times what the memory of all steps before it
returns for its query, as the delta rule does for a linear memory. q and k are rotated.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Part, State
from zoo.deviations import INITIAL_WEIGHTS, SWIGLU_WIDTH
from zoo.layers.attention import steps, visible
from zoo.layers.linear import few
from zoo.layers.projected_attention import ProjectedAttention
from zoo.layers.tensors import merge_heads, zero_padding, zeros_fp32
from zoo.ops.attention import attend
from zoo.ops.softmax_delta import Stored, softmax_delta


@register(
    family="transformers",
    paper="Zhong et al. 2025, Understanding Transformer from the Perspective of Associative Memory, arXiv:2505.19488",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/deltaformer.py, fla/models/deltaformer)",
    deviations=(
        "4 heads, where the official layer has 32 by default, the official model 8",
        "β is a linear function of x without bounds, and both softmaxes have the same q and k, as in the official code",
        "as many heads of keys and values as of queries, where the official code asks for fewer but cannot have them",
        "decoding from a cache of k and u, which the official code has not",
        SWIGLU_WIDTH,
        INITIAL_WEIGHTS,
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
    positions="rope",
)
class DeltaFormer(ProjectedAttention):
    """DeltaFormer: softmax attention to values less what earlier steps had stored for the same query.

    State: `k` (B, H, S, d); `u` (B, H, S, d), in float32 at least; and `valid` (B, 1, S).

    Args:
        qkv_bias: of W_q, W_k and W_v. qk_norm: RMSNorm over each head of q and k.
    """

    def __init__(self, context: LayerContext, *, heads: int = 4, qkv_bias: bool = False, qk_norm: bool = False) -> None:
        super().__init__(context, "deltaformer", heads=heads, qkv_bias=qkv_bias, qk_norm=qk_norm)
        self.b_proj = nn.Linear(context.width, heads)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x, T = zero_padding(x, mask), x.shape[1]
        now = steps(None if state is None else {**state, "valid": state["valid"][:, 0]}, T, x.device)
        q, k, v = self.project(x, now)
        beta = few(x, self.b_proj.weight, self.b_proj.bias).transpose(1, 2)
        before = None if state is None else Stored(k=state["k"], u=state["u"], valid=state["valid"])
        new = softmax_delta(q, k, v, beta, None if mask is None else mask[:, None], before)
        k, u, valid = new["k"], new["u"], new["valid"]
        seen = visible(None if valid is None else valid[:, 0], T)
        y = attend(q.to(k.dtype), k, u.to(k.dtype), visible=seen, causal=True)
        return self.o_proj(merge_heads(y).to(x.dtype)), None if state is None else {**new}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        k = super().init_state(batch, device=device, dtype=dtype)["k"]
        valid = torch.empty(batch, 1, 0, device=device, dtype=torch.bool)
        return {"k": k, "u": zeros_fp32(*k.shape, device=device, dtype=dtype), "valid": valid}
