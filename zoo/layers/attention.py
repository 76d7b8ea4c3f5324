"""Multi-head softmax attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

    head_h = softmax(Q_h K_hᵀ / √d_h + bias_h) V_h,    y = concat(head_1, ..., head_H) W_O

with Q, K, V = x W_Q, x W_K, x W_V; rotations and bias come from relative positions, where the architecture has any.
Decoding keeps every past key and value: a state of 2·T·D numbers per layer, or as much less as heads share them.
Options are those of later models: RMSNorm of queries and keys, a gate on the heads, sinks.
"""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zoo.contract import LayerContext, Mask, Mixed, State, Traits
from zoo.layers.linear import Linear, branch_
from zoo.layers.multi_head import MultiHead
from zoo.layers.norms import RMSNorm
from zoo.layers.qkv import split, turn
from zoo.layers.ranges import shared_heads
from zoo.layers.tensors import merge_heads
from zoo.ops.attention import attend


class Attention(MultiHead):
    """Multi-head attention, causal or bidirectional.

    Args:
        kv_heads: heads of keys and values, each shared by heads / kv_heads query heads (Ainslie et al. 2023,
            arXiv:2305.13245); None for as many as queries have.
        head_dim: d_h; None for width / heads.
        scale: of the scores; None for 1/√d_h. T5 has 1.
        qk_norm: RMSNorm of each query and key before it turns, weights shared by the heads (Qwen3, arXiv:2505.09388);
            "full" over all heads at once (OLMo 2, arXiv:2501.00656).
        gate: heads times σ(x W_G), feature by feature, before W_O (Qiu et al. 2025, arXiv:2505.06708, position G₁).
        sinks: a learned score for each head beside those of the keys, without a value (gpt-oss, arXiv:2508.10925).
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
        head_dim: int | None = None,
        bias: bool = True,
        scale: float | None = None,
        qk_norm: bool | Literal["full"] = False,
        gate: bool = False,
        sinks: bool = False,
    ) -> None:
        super().__init__(context, "attention", heads, head_dim)
        self.kv_heads, self.scale = shared_heads("attention", heads, kv_heads), scale
        if scale is not None and scale <= 0:
            raise ValueError(f"attention: scale must be positive, got {scale}")
        D, d = context.width, self.head_width
        self.qkv = Linear(D, (heads + 2 * self.kv_heads) * d, bias=bias)
        self.out = Linear(heads * d, D, bias=bias)
        self.normed_together = qk_norm == "full"
        widths = (heads * d, self.kv_heads * d) if self.normed_together else (d, d)
        self.q_norm, self.k_norm = (RMSNorm(width, eps=1e-6) if qk_norm else None for width in widths)
        self.gate = Linear(D, heads * d, bias=bias) if gate else None
        self.sinks = nn.Parameter(torch.empty(heads)) if sinks else None

    @classmethod
    def width_multiple(cls, *, head_dim: int | None = None, **options: Any) -> int:
        return super().width_multiple(**options) if head_dim is None else 1

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        T = x.shape[1]
        now, features = steps(state, T, x.device), self.qkv(x)
        turns = [self.positions.turn(now, features.dtype, key=key) for key in (False, True)]
        if self.normed_together and self.q_norm is not None and self.k_norm is not None:
            q, k, v = features.split([self.out.in_features] + 2 * [self.kv_heads * self.head_width], dim=-1)
            features = torch.cat([self.q_norm(q), self.k_norm(k), v], dim=-1)
        if self.normed_together or self.q_norm is None or self.k_norm is None:
            q, k, v = split(features, self.heads, self.kv_heads, *turns)
        else:
            q, k, v = split(features, self.heads, self.kv_heads)
            q, k = turn(self.q_norm(q), turns[0]), turn(self.k_norm(k), turns[1])
        k, v, valid, new = remember(state, k, v, mask)
        if state is not None:
            q = q.to(k.dtype)
        bias = self.positions.bias(now, key_steps(valid, k))
        y = attend(q, k, v, visible=visible(valid, T), causal=self.causal, bias=bias, sink=self.sinks, scale=self.scale)
        y = merge_heads(y)
        return self.out(y if self.gate is None else y * self.gate(x).sigmoid()), new

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        empty = torch.empty(batch, self.kv_heads, 0, self.head_width, device=device, dtype=dtype)
        return {"k": empty, "v": empty}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `branch_`; with DeepNorm the values' part of the joint projection is scaled too. Sinks start at 0."""
        gate = [] if self.gate is None else [self.gate]
        branch_(self.qkv, *gate, out=self.out, depth=depth, gain=self.gain)
        for norm in (self.q_norm, self.k_norm):
            if norm is not None:
                norm.reset_parameters()
        if self.sinks is not None:
            nn.init.zeros_(self.sinks)
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
