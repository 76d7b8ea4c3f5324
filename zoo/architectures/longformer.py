"""Longformer attention: a sliding window and a few global tokens (Beltagy et al. 2020, arXiv:2004.05150, section 3.1).

    y_t = Σ_{s ∈ G ∪ W(t)} softmax_s(q_t·k_s / √d) v_s        for t ∉ G
    y_t = Σ_s softmax_s(q'_t·k'_s / √d) v'_s                  for t ∈ G, over the whole sequence

G are the first tokens and W(t) = {t − w/2, ..., t + w/2}: `window` w is the total width without the query itself, as
transformers counts it. A local query has one softmax over window and global keys, and a global key counts once. Global
queries look through projections of their own (q', k', v'), which start as copies of the others. The causal form, for
language models (section 4), has no global tokens: W(t) = {t − w/2, ..., t}.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, State, Traits, Unsupported
from zoo.layers import banded_attention
from zoo.layers.linear import Linear, branch_
from zoo.layers.local_attention import empty, recall
from zoo.layers.multi_head import MultiHead
from zoo.layers.tensors import merge_heads, split_heads, zero_padding
from zoo.ops import attention


@register(
    family="efficient attention",
    paper="Beltagy et al. 2020, Longformer: The Long-Document Transformer, arXiv:2004.05150",
    source="https://github.com/allenai/longformer; transformers, models/longformer",
    deviations=(
        "the window is counted as transformers does, both sides together without the query; allenai/longformer counts "
        "one side. It is 64 by default, where the models have 512",
        "the first tokens are the global ones; the official task models also choose others (all tokens of a question)",
        "causal: one side of the window and no global tokens, as the paper's language models and the official "
        "autoregressive=True; windows do not grow from layer to layer, and there is no dilation",
        "global projections start as copies of the local ones (paper); transformers draws them apart",
        "a masked query sees itself instead of giving zeros",
        "residual type, GELU and initialisation are pre_ln's",
    ),
    positions="learned",
)
class Longformer(MultiHead):
    """Transformer with a sliding window and a few global tokens that see, and are seen by, all others.

    State: the last w/2 keys and values, as in `local_attention.recall`.

    Args:
        window: w, even; w/2 keys on each side (causal: w/2 before), besides the query itself. At most twice
            `context.length`; None for 64, or that where it is less.
        global_tokens: how many of the first tokens see, and are seen by, all others. Causal models have none.
    """

    traits = Traits(causal="strict", bidirectional=True, resumable=True)
    feeds_matmul_only = True
    relative = ("rotation",)

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        window: int | None = None,
        global_tokens: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(context, "longformer", heads)
        twice = 2 * context.length
        window = min(64, twice) if window is None else window
        if window < 2 or window % 2:
            raise ValueError(f"longformer: window {window} must be even and positive, half of it lies on each side")
        if window > twice:
            raise ValueError(f"longformer: window {window} must be at most {twice}, twice the sequence length")
        if global_tokens < 0:
            raise ValueError(f"longformer: global_tokens must not be negative, got {global_tokens}")
        self.window, self.global_tokens = window, 0 if context.causal else global_tokens
        names = ["query", "key", "value"]
        if self.global_tokens:
            names += ["query_global", "key_global", "value_global"]
        for name in names:
            setattr(self, name, Linear(context.width, context.width, bias=bias))
        self.out = Linear(context.width, context.width, bias=bias)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        y, new = self._causal(x, mask, state) if self.causal else self._bidirectional(x, mask, state)
        return self.out(merge_heads(y.to(x.dtype))), new

    def _heads(self, x: Tensor, *names: str, start: Tensor | None = None) -> list[Float[Tensor, "B H T d"]]:
        """Queries, keys, values by the names of their projections; positions count from `start` (B,), or 0."""
        now = torch.arange(x.shape[1], device=x.device)[None] + (0 if start is None else start[:, None])
        heads = {name: split_heads(getattr(self, name)(x), self.heads) for name in names}
        return [
            z if name.startswith("value") else self.positions.rotate(z, now, key=name.startswith("key"))
            for name, z in heads.items()
        ]

    def _causal(self, x: Tensor, mask: Mask | None, state: State | None) -> tuple[Tensor, State | None]:
        q, k, v = self._heads(x, "query", "key", "value", start=None if state is None else state["steps"])
        k, v, valid, new = recall(state, k, v, mask)
        return banded_attention.attend(q.to(k.dtype), k, v, before=self.window // 2, valid=valid), new

    def _bidirectional(self, x: Tensor, mask: Mask | None, state: State | None) -> tuple[Tensor, None]:
        if state is not None:
            raise Unsupported("a bidirectional Longformer cannot continue from a state")
        half, G = self.window // 2, min(self.global_tokens, x.shape[1])
        q, k, v = self._heads(x, "query", "key", "value")
        if not G:
            return banded_attention.attend(q, k, v, before=half, after=half, valid=mask), None
        steps = torch.arange(x.shape[1], device=x.device)
        # The first step stands in for the valid ones that a row of padding lacks; in any other row it is valid.
        valid = None if mask is None else mask | (steps == 0)
        ordinary = (steps >= G)[None].expand(x.shape[:2]) if valid is None else valid & (steps >= G)
        extra = banded_attention.Extra(k[:, :, :G], v[:, :, :G], None if valid is None else valid[:, :G])
        y = banded_attention.attend(q, k, v, before=half, after=half, valid=ordinary, extra=extra)
        (q,), (k, v) = self._heads(x[:, :G], "query_global"), self._heads(x, "key_global", "value_global")
        everywhere = attention.attend(q, k, v, visible=None if valid is None else valid[:, None, None])
        return torch.cat([everywhere, y[:, :, G:]], dim=2), None

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        return empty(batch, self.heads, self.window // 2, self.head_width, device=device, dtype=dtype)

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `branch_`; the global projections start as copies of the local ones (section 3.1)."""
        names = ("query", "key", "value")
        branch_(*(getattr(self, name) for name in names), out=self.out, depth=depth)
        for name in names if self.global_tokens else ():
            getattr(self, f"{name}_global").load_state_dict(getattr(self, name).state_dict())
