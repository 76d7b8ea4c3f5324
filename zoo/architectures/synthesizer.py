"""Synthesizer: attention whose scores come without dot products (Tay et al. 2021, arXiv:2005.00743, section 3).

    y = softmax(S) V
    dense                S_t = W₂ relu(W₁ x_t)                                  (section 3.2, eq. 1)
    factorized dense     S_{t,s} = A_{t, ⌊s/b⌋} B_{t, s mod b},    A_t, B_t = W_A relu(W₁ x_t), W_B relu(W₁ x_t)
    random               S = R, learned                                         (eq. 3)
    factorized random    S = R₁ R₂ᵀ, of rank k                                  (eq. 5)

with S (T, T) of each head by `variant`. `dot` mixes in q·k/√d, with q = W₁ x (section 3.4): added to S ("plus"), or as
(1 − σ(α)) q·k/√d + σ(α) S ("alpha"). The scores of a step reach `LayerContext.length` columns and depend on its place:
a table of positions. Decoding keeps the past values, and a row's place.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, State, Traits
from zoo.layers.linear import Linear, branch_, fan_in_
from zoo.layers.multi_head import MultiHead
from zoo.layers.ranges import at_least_one
from zoo.layers.tensors import in_fp32, merge_heads, put_steps, split_heads, zero_padding


@register(
    family="efficient attention",
    paper="Tay et al. 2021, Synthesizer: Rethinking Self-Attention for Transformer Models, arXiv:2005.00743",
    source="https://github.com/tensorflow/mesh (mesh_tensorflow/transformer/attention.py, synthetic_attention)",
    deviations=(
        "dense: W_1 gives each head its d hidden units and W_2 is one for all heads, as in both official codes; the "
        "paper writes a layer of D hidden units for each head",
        "the code of long-range-arena reshapes dense scores without transposing heads and time, which mixes the two; "
        "we follow mesh and the paper",
        "projections have biases, as in long-range-arena; mesh has none",
        "factorized_dense is in neither official code: every pair of entries of A and B gives a score, as the paper's "
        "text asks for, which its two plain tilings would not; the length need not be a multiple of b",
        "the tables of the random variants learn; the paper also keeps them as drawn",
        "a dot product mixed in is scaled by 1/sqrt(d); mesh folds that into the initial queries",
        "residual type, GELU and initialisation (but for the tables, Glorot's as in mesh) are pre_ln's",
    ),
    positions="learned",
)
class Synthesizer(MultiHead):
    """Transformer whose attention scores come from each step alone, or from a table, without dot products.

    State: the values `v` (and keys `k` with a dot product) of the slots so far, (B, H, S, D/H), valid ones first, and
    the number `n` (B,) of valid ones.

    Args:
        rank: k of factorized_random. factor: b of factorized_dense; None for ⌈√length⌉.
        bias: of all projections but the keys', whose bias no softmax would notice.
    """

    traits = Traits(causal="strict", bidirectional=True, resumable=True, length="max")
    R: Tensor
    R1: Tensor
    R2: Tensor

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        variant: Literal["dense", "factorized_dense", "random", "factorized_random"] = "dense",
        dot: Literal["none", "plus", "alpha"] = "none",
        rank: int = 32,
        factor: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__(context, "synthesizer", heads)
        D, L, d = context.width, context.length, self.head_width
        at_least_one("synthesizer", rank=rank)
        if factor is not None and not 1 <= factor <= L:
            raise ValueError(f"synthesizer: factor must lie in 1 .. {L}, the sequence length; got {factor}")
        self.length, self.variant, self.dot = L, variant, dot
        self.value, self.out = Linear(D, D, bias=bias), Linear(D, D, bias=bias)
        if variant.endswith("dense") or dot != "none":
            self.query = Linear(D, D, bias=bias)
        if dot != "none":
            self.key = nn.Linear(D, D, bias=False)
        if dot == "alpha":
            self.alpha = nn.Parameter(torch.empty(1))
        if variant == "dense":
            self.scores = Linear(d, L, bias=bias)
        elif variant == "factorized_dense":
            b = factor or math.ceil(math.sqrt(L))
            self.scores_a, self.scores_b = Linear(d, -(-L // b), bias=bias), Linear(d, b, bias=bias)
        tables = {"random": {"R": (heads, L, L)}, "factorized_random": dict.fromkeys(("R1", "R2"), (heads, L, rank))}
        self.tables = tables.get(variant, {})
        for name, shape in self.tables.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        self._reset_tables()

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        B, T, _ = x.shape
        cached = 0 if state is None else state["v"].shape[2]
        if cached + T > self.length:
            raise ValueError(f"synthesizer: {cached + T} steps, but it was built for at most {self.length}")
        new = {"v": split_heads(self.value(x), self.heads)}
        q = split_heads(self.query(x), self.heads) if hasattr(self, "query") else None  # W₁ x
        if self.dot != "none":
            new["k"] = split_heads(self.key(x), self.heads)
        new = {name: zero_padding(z, mask, 2) for name, z in new.items()}
        # Place t of each step in its row, and how many steps of the row there are with it.
        t = torch.arange(T, device=x.device)[None]
        n = torch.full((B,), T, device=x.device) if mask is None else mask.sum(1)
        if state is not None:
            t, n = t + state["n"][:, None], n + state["n"]
            new = {name: put_steps(F.pad(state[name], (0, 0, 0, T)), z, t) for name, z in new.items()}
        seen = self._visible(t, n, cached + T, mask is not None or state is not None)
        weights = self._weights(t, cached + T, q, new.get("k"), seen).to(new["v"].dtype)
        y = (weights.expand(B, -1, -1, -1) @ new["v"]).to(x.dtype)
        return self.out(merge_heads(y)), None if state is None else {**new, "n": n}

    @in_fp32
    def _weights(
        self, t: Tensor, columns: int, q: Tensor | None, k: Tensor | None, seen: Tensor | None
    ) -> Float[Tensor, "#B H T S"]:
        """The softmax of S, and of the dot product mixed in, over the columns seen."""
        S = self._synthesize(t, columns, q)
        if q is not None and k is not None:
            dots = q @ k.mT * q.shape[-1] ** -0.5
            a = self.alpha.sigmoid() if self.dot == "alpha" else None
            S = dots + S if a is None else (1 - a) * dots + a * S
        if seen is not None:
            S = S.masked_fill(~seen[:, None], torch.finfo(S.dtype).min)
        return S.softmax(-1)

    @in_fp32
    def _synthesize(
        self, t: Int[Tensor, "#B T"], columns: int, q: Float[Tensor, "B H T d"] | None
    ) -> Float[Tensor, "#B H T S"]:
        """S, its first `columns` columns."""
        if self.variant == "random":
            return self.R[:, t, :columns].transpose(0, 1)
        if self.variant == "factorized_random":
            return self.R1[:, t].transpose(0, 1) @ self.R2[:, :columns].mT
        assert q is not None
        hidden = q.relu()
        if self.variant == "dense":
            return _linear(hidden, self.scores, columns)
        A, B = _linear(hidden, self.scores_a), _linear(hidden, self.scores_b)
        return (A[..., None] * B[..., None, :]).flatten(-2)[..., :columns]

    def _visible(
        self, t: Int[Tensor, "#B T"], n: Int[Tensor, B], columns: int, ragged: bool
    ) -> Bool[Tensor, "B T S"] | None:
        """Which columns each step sees: those of valid steps, and of none later if causal. None for all."""
        s = torch.arange(columns, device=t.device)
        seen = (s < n[:, None])[:, None] if ragged else None
        if self.causal:
            past = s <= t[..., None]
            seen = past if seen is None else past & seen
        return seen

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        empty = torch.empty(batch, self.heads, 0, self.head_width, device=device, dtype=dtype)
        names = ("v",) if self.dot == "none" else ("v", "k")
        return {**dict.fromkeys(names, empty), "n": torch.zeros(batch, dtype=torch.long, device=device)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """See `branch_`; α zero, the tables as Glorot and Bengio 2010 have matrices (mesh's default)."""
        fan_in_(self.value, self.gain or 1.0)
        names = ("query", "key", "scores", "scores_a", "scores_b")
        into = [getattr(self, name) for name in names if hasattr(self, name)]
        branch_(*into, out=self.out, depth=depth, gain=self.gain)
        if self.dot == "alpha":
            nn.init.zeros_(self.alpha)
        self._reset_tables()

    def _reset_tables(self) -> None:
        for name, (_, rows, columns) in self.tables.items():
            bound = (6 / (rows + columns)) ** 0.5
            nn.init.uniform_(getattr(self, name), -bound, bound)


def _linear(x: Tensor, layer: nn.Linear, columns: int | None = None) -> Tensor:
    """The layer's first `columns` outputs, in x's precision."""
    bias = None if layer.bias is None else layer.bias[:columns].to(x.dtype)
    return F.linear(x, layer.weight[:columns].to(x.dtype), bias)
