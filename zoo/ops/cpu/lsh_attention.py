"""The softmax of LSH attention as compiled loops: masks, exponentials and sum of a query while its scores are in L1."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from zoo.ops.cpu.jit import copy, exp, inlined, loop, rank, ranked
from zoo.ops.cpu.threads import run
from zoo.ops.lsh_attention.naive import HIDDEN, SELF


def exponentials(s: Tensor, plan: Any, part: slice, top: Tensor, total: Tensor) -> None:
    """See `chunked.exponentials`."""
    run(_exponentials, len(s), s, _Mask.of(s, plan, part), top, total)


def slopes(s: Tensor, ds: Tensor, plan: Any, part: slice, top: Tensor, D: Tensor) -> None:
    """See `chunked.slopes`."""
    run(_slopes, len(s), s, ds, _Mask.of(s, plan, part), top, D)


class _Mask(NamedTuple):
    """What becomes of scores: steps as in `chunked.Plan`, and a bias or none."""

    q_at: Tensor
    reach: Tensor
    k_at: Tensor
    bias: Tensor

    @classmethod
    def of(cls, s: Tensor, plan: Any, part: slice) -> _Mask:
        bias = plan.bias(part, s.dtype)
        bias = s.new_empty(0, 0, 0) if bias is None else bias
        return cls(q_at=plan.q_at[part], reach=plan.reach[part], k_at=plan.k_at[part], bias=bias)


@loop
def _exponentials(start, stop, s, mask, top, total):  # type: ignore[no-untyped-def]
    """Work items are chunks."""
    _, C, W = s.shape
    row = np.empty(W, s.dtype)
    for i in range(start, stop):
        for c in range(C):
            _load_scores(s, i, c, mask, row)
            order = rank(row[0])
            for j in range(W):
                order = max(order, rank(row[j]))
            highest, z = ranked(order), s.dtype.type(0)
            for j in range(W):
                row[j] = exp(row[j] - highest)
                z += row[j]
            copy(row, s[i, c])
            top[i, c], total[i, c] = highest, z


@loop
def _slopes(start, stop, s, ds, mask, top, D):  # type: ignore[no-untyped-def]
    """Work items are chunks."""
    _, C, W = s.shape
    row, slope, zero = np.empty(W, s.dtype), np.empty(W, s.dtype), s.dtype.type(0)
    for i in range(start, stop):
        for c in range(C):
            own, last, highest, mean = mask.q_at[i, c], mask.reach[i, c], top[i, c], D[i, c]
            k_at, ds_ = mask.k_at[i], ds[i, c]
            _load_scores(s, i, c, mask, row)
            for j in range(W):
                row[j] = exp(row[j] - highest)
            for j in range(W):
                fixed = (k_at[j] > last) | (k_at[j] == own)
                slope[j] = zero if fixed else row[j] * (ds_[j] - mean)
            copy(row, s[i, c])
            copy(slope, ds_)


@inlined
def _load_scores(s, i, c, mask, row):  # type: ignore[no-untyped-def]
    """Scores of query c of chunk i, with what is hidden and the step itself in their places, and the bias."""
    k_at, own, last, of = mask.k_at[i], mask.q_at[i, c], mask.reach[i, c], s[i, c]
    hidden, itself = row.dtype.type(HIDDEN), row.dtype.type(SELF)
    for j in range(len(row)):
        x = hidden if k_at[j] > last else of[j]
        row[j] = itself if k_at[j] == own else x
    if len(mask.bias) > 0:
        bias = mask.bias[i, c]
        for j in range(len(row)):
            row[j] += bias[j]
