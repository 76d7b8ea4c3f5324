"""Multi-head softmax attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

    head_h = softmax(Q_h K_hᵀ / √d_h + bias_h) V_h,    y = concat(head_1, ..., head_H) W_O

with Q, K, V = x W_Q, x W_K, x W_V; rotations and bias come from relative positions, where the architecture has any.
Decoding keeps every past key and value: a state of 2·T·D numbers per layer.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.contract import LayerContext, Mask, Mixed, State, Traits
from zoo.layers.linear import Linear, branch_
from zoo.layers.multi_head import MultiHead
from zoo.layers.qkv import split
from zoo.layers.ranges import shared_heads
from zoo.layers.tensors import merge_heads
from zoo.ops.attention import attend


class Attention(MultiHead):
    """Multi-head attention, causal or bidirectional.

    Args:
        kv_heads: heads of keys and values, each shared by heads / kv_heads query heads (Ainslie et al. 2023,
            arXiv:2305.13245); None for as many as queries have.
        scale: of the scores; None for 1/√d_h. T5 has 1.
    """

    traits = Traits(causal="strict", bidirectional=True, resumable=True)
    feeds_matmul_only = True
    relative = ("rotation", "bias")

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        kv_heads: int | None = None,
        bias: bool = True,
        scale: float | None = None,
    ) -> None:
        super().__init__(context, "attention", heads)
        self.kv_heads, self.scale = shared_heads("attention", heads, kv_heads), scale
        if scale is not None and scale <= 0:
            raise ValueError(f"attention: scale must be positive, got {scale}")
        self.qkv = Linear(context.width, (heads + 2 * self.kv_heads) * self.head_width, bias=bias)
        self.out = Linear(context.width, context.width, bias=bias)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        T = x.shape[1]
        now, features = steps(state, T, x.device), self.qkv(x)
        turns = (self.positions.turn(now, features.dtype, key=key) for key in (False, True))
        q, k, v = split(features, self.heads, self.kv_heads, *turns)
        k, v, valid, new = remember(state, k, v, mask)
        if state is not None:
            q = q.to(k.dtype)
        bias = self.positions.bias(now, key_steps(valid, k))
        y = attend(q, k, v, visible=visible(valid, T), causal=self.causal, bias=bias, scale=self.scale)
        return self.out(merge_heads(y)), new

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        empty = torch.empty(batch, self.kv_heads, 0, self.head_width, device=device, dtype=dtype)
        return {"k": empty, "v": empty}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `branch_`; with DeepNorm the values' part of the joint projection is scaled too."""
        branch_(self.qkv, out=self.out, depth=depth, gain=self.gain)
        if self.gain is not None:
            with torch.no_grad():
                self.qkv.weight[-self.kv_heads * self.head_width :] *= self.gain


def remember(
    state: State | None, k: Float[Tensor, "B H T d"], v: Float[Tensor, "B H T e"], mask: Mask | None
) -> tuple[Tensor, Tensor, Bool[Tensor, "B S"] | None, State | None]:
    """Keys and values behind those of the cache, which of them are valid (None: all), and the next cache."""
    if state is None:
        return k, v, mask, None
    B, T, past = k.shape[0], k.shape[2], state["k"]
    k = torch.cat([past, k.to(past.dtype)], dim=2)
    v = torch.cat([state["v"], v.to(state["v"].dtype)], dim=2)
    new: State = {"k": k, "v": v}
    if mask is not None or "valid" in state:
        before = state.get("valid", torch.ones(B, past.shape[2], dtype=torch.bool, device=k.device))
        now = torch.ones(B, T, dtype=torch.bool, device=k.device) if mask is None else mask
        new["valid"] = mask = torch.cat([before, now], dim=1)
    return k, v, mask, new


def steps(state: State | None, T: int, device: torch.device) -> Int[Tensor, "#B T"]:
    """The positions of T steps behind those in the cache."""
    now = torch.arange(T, device=device)[None]
    if state is None:
        return now
    return now + (state["valid"].sum(1, keepdim=True) if "valid" in state else state["k"].shape[2])


def key_steps(valid: Bool[Tensor, "B S"] | None, k: Float[Tensor, "B H S d"]) -> Int[Tensor, "#B S"]:
    """The positions of all keys, the cache's included."""
    return torch.arange(k.shape[2], device=k.device)[None] if valid is None else valid.long().cumsum(1) - 1


def visible(valid: Bool[Tensor, "B S"] | None, T: int) -> Bool[Tensor, "B 1 T S"] | None:
    """Which keys a query may see: valid ones, and always itself, so that no softmax of a padded row is empty."""
    if valid is None:
        return None
    S = valid.shape[1]
    itself = torch.ones(T, S, dtype=torch.bool, device=valid.device).triu(S - T).tril(S - T)
    return valid[:, None, None, :] | itself
