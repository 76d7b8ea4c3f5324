"""The softmax of LSH attention as compiled loops: masks, exponentials and sum of a query while its scores are in L1."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from zoo.ops.cpu.jit import exp, inlined, loop, rank, ranked
from zoo.ops.cpu.threads import run
from zoo.ops.lsh_attention.naive import HIDDEN, SELF


def exponentials(s: Tensor, plan: Any, part: slice, top: Tensor, total: Tensor) -> None:
    """See `chunked.exponentials`."""
    run(_exponentials, len(s), s, *_steps(s, plan, part), top, total)


def slopes(s: Tensor, ds: Tensor, plan: Any, part: slice, top: Tensor, D: Tensor) -> None:
    """See `chunked.slopes`."""
    run(_slopes, len(s), s, ds, *_steps(s, plan, part), top, D)


def _steps(s: Tensor, plan: Any, part: slice) -> list[Any]:
    bias = plan.bias(part, s.dtype)
    bias = s.new_empty(0, 0, 0) if bias is None else bias
    constants = s.new_tensor([HIDDEN, SELF])
    return [plan.q_at[part], plan.reach[part], plan.k_at[part], bias, constants]


@loop
def _exponentials(start, stop, s, q_at, reach, k_at, bias, constants, top, total):  # type: ignore[no-untyped-def]
    """Work items start … stop − 1 are chunks."""
    _, C, W = s.shape
    row = np.empty(W, s.dtype)
    for i in range(start, stop):
        for c in range(C):
            _mask(s[i, c], k_at[i], q_at[i, c], reach[i, c], constants[0], constants[1], row)
            if len(bias):
                _add(bias[i, c], row)
            order = rank(row[0])
            for j in range(W):
                order = max(order, rank(row[j]))
            highest, z = ranked(order), s.dtype.type(0)
            for j in range(W):
                row[j] = exp(row[j] - highest)
                z += row[j]
            _copy(row, s[i, c])
            top[i, c], total[i, c] = highest, z


@loop
def _slopes(start, stop, s, ds, q_at, reach, k_at, bias, constants, top, D):  # type: ignore[no-untyped-def]
    _, C, W = s.shape
    row, slope = np.empty(W, s.dtype), np.empty(W, s.dtype)
    zero = constants[0] - constants[0]
    for i in range(start, stop):
        k_ = k_at[i]
        for c in range(C):
            own, last, highest, mean, ds_ = q_at[i, c], reach[i, c], top[i, c], D[i, c], ds[i, c]
            _mask(s[i, c], k_, own, last, constants[0], constants[1], row)
            if len(bias):
                _add(bias[i, c], row)
            for j in range(W):
                row[j] = exp(row[j] - highest)
            for j in range(W):
                fixed = (k_[j] > last) | (k_[j] == own)
                slope[j] = zero if fixed else row[j] * (ds_[j] - mean)
            _copy(row, s[i, c])
            _copy(slope, ds_)


@inlined
def _mask(s, k_at, own, last, hidden, itself, row):  # type: ignore[no-untyped-def]
    for j in range(len(row)):
        x = hidden if k_at[j] > last else s[j]
        row[j] = itself if k_at[j] == own else x


@inlined
def _add(bias, row):  # type: ignore[no-untyped-def]
    for j in range(len(row)):
        row[j] += bias[j]


@inlined
def _copy(source, target):  # type: ignore[no-untyped-def]
    for j in range(len(source)):
        target[j] = source[j]
