"""Sliding-window attention: softmax over the nearest keys only, at a cost linear in T.

    y_t = softmax_{s ∈ W(t)}(q_t·k_s / √d + bias_{t−s}) v_s,
    W(t) = {t − w + 1, ..., t}                                 (causal: itself and w − 1 keys before it)
    W(t) = {t − ⌊w/2⌋, ..., t + ⌊w/2⌋}                         (both ways: itself and ⌊w/2⌋ keys on each side)

The causal form is that of Mistral 7B (Jiang et al. 2023, arXiv:2310.06825, section 2) and of Griffin's local attention
(De et al. 2024, arXiv:2402.19427, section 2.3). Query heads may share heads of keys and values (multi-query,
Shazeer 2019; grouped, Ainslie et al. 2023). Decoding keeps w − 1 keys and values, whatever the length. Rotations and
bias come from relative positions, where the architecture has any.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.contract import LayerContext, Mask, Mixed, State, Traits, Unsupported
from zoo.layers.banded_attention import attend
from zoo.layers.linear import branch_
from zoo.layers.multi_head import MultiHead
from zoo.layers.positions.in_attention import places
from zoo.layers.ranges import shared_heads
from zoo.layers.tensors import merge_heads, split_heads, take_steps, zero_padding


class LocalAttention(MultiHead):
    """Sliding-window attention, causal or bidirectional. State: see `recall`.

    Args:
        kv_heads: heads of keys and values, each shared by heads / kv_heads query heads; None for as many as queries.
        head_width: d; None for width / heads.
        window: w, at most `context.length`; None for 64, or the whole length where that is less.
        bias: of the projections of queries, keys and values. out_bias: of the output projection.
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
        head_width: int | None = None,
        window: int | None = None,
        bias: bool = True,
        out_bias: bool = True,
    ) -> None:
        super().__init__(context, "local", heads, head_width, "head_width")
        self.kv_heads, d = shared_heads("local", heads, kv_heads), self.head_width
        self.window = min(64, context.length) if window is None else window
        if not 1 <= self.window <= context.length:
            raise ValueError(f"local: window {self.window} must lie in 1 .. {context.length}, the sequence length")
        self.before, self.after = (self.window - 1, 0) if context.causal else (self.window // 2, self.window // 2)
        self.q_proj = nn.Linear(context.width, heads * d, bias=bias)
        self.k_proj = nn.Linear(context.width, self.kv_heads * d, bias=bias)
        self.v_proj = nn.Linear(context.width, self.kv_heads * d, bias=bias)
        self.out_proj = nn.Linear(heads * d, context.width, bias=out_bias)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        if state is not None and not self.causal:
            raise Unsupported("bidirectional local attention cannot continue from a state")
        x = zero_padding(x, mask)
        q = split_heads(self.q_proj(x), self.heads)
        k, v = (split_heads(project(x), self.kv_heads) for project in (self.k_proj, self.v_proj))
        now, _ = places(state, x.shape[1], mask, x.device)
        q, k = self.positions.rotate_both(q, k, now)
        k, v, valid, new = recall(state, k, v, mask)
        y = attend(q.to(k.dtype), k, v, before=self.before, after=self.after, valid=valid, bias=self._bias(x.device))
        return self.out_proj(merge_heads(y.to(x.dtype))), new

    def _bias(self, device: torch.device) -> Float[Tensor, "H W"] | None:
        """The bias of the positions by distance, as one query in the middle of its window has it."""
        window = torch.arange(self.before + self.after + 1, device=device)[None]
        bias = self.positions.bias(window[:, self.before : self.before + 1], window)
        return None if bias is None else bias[0, :, 0]

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return empty(batch, self.kv_heads, self.before, self.head_width, device=device, dtype=dtype)

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        branch_(self.q_proj, self.k_proj, values=self.v_proj, out=self.out_proj, depth=depth, gain=self.gain)


def empty(batch: int, heads: int, past: int, d: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
    """A cache for `past` keys and values, before the first step."""
    k = torch.zeros(batch, heads, past, d, device=device, dtype=dtype)
    return {"k": k, "v": torch.zeros_like(k), "steps": torch.zeros(batch, device=device, dtype=torch.long)}


def recall(
    state: State | None, k: Float[Tensor, "B H T d"], v: Float[Tensor, "B H T d"], mask: Mask | None
) -> tuple[Tensor, Tensor, Bool[Tensor, "B S"] | None, State | None]:
    """Keys and values behind those of the cache, which of them are valid (None: all), and the next cache.

    A cache holds `k` and `v` of the last valid steps of each row, right-aligned in a fixed number of slots, and
    `steps`, the number of valid steps so far, from which follows how many slots are in use.
    """
    if state is None:
        return k, v, mask, None
    B, T, past = k.shape[0], k.shape[2], state["k"].shape[2]
    k = torch.cat([state["k"], k.to(state["k"].dtype)], dim=2)
    v = torch.cat([state["v"], v.to(state["v"].dtype)], dim=2)
    slots = torch.arange(past, device=k.device)
    now = torch.ones(B, T, dtype=torch.bool, device=k.device) if mask is None else mask
    valid = torch.cat([slots >= past - state["steps"][:, None], now], dim=1)
    if mask is None:
        return k, v, valid, {"k": k[:, :, T:], "v": v[:, :, T:], "steps": state["steps"] + T}
    count = mask.sum(1)
    last = count[:, None] + slots
    return k, v, valid, {"k": take_steps(k, last), "v": take_steps(v, last), "steps": state["steps"] + count}
