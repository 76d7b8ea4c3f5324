"""The softmax of LSH attention as compiled loops: masks, exponentials and sum of a query while its scores are in L1."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from zoo.ops.cpu.jit import exp, inlined, loop
from zoo.ops.cpu.threads import run
from zoo.ops.lsh_attention.naive import HIDDEN, SELF


def exponentials(s: Tensor, plan: Any, part: slice, top: Tensor, total: Tensor) -> None:
    """See `chunked.exponentials`."""
    arrays = [s.numpy(), *_steps(s, plan, part), top.numpy(), total.numpy()]
    run(_exponentials, len(s), *arrays)


def slopes(s: Tensor, ds: Tensor, plan: Any, part: slice, top: Tensor, D: Tensor) -> None:
    """See `chunked.slopes`."""
    arrays = [s.numpy(), ds.numpy(), *_steps(s, plan, part), top, D]
    run(_slopes, len(s), *arrays)


def argmax(x: Float[Tensor, "*B F"]) -> Int[Tensor, "*B"]:
    """argmax [x, −x] along the last axis, the first of several."""
    place = torch.empty(x.shape[:-1], dtype=torch.long)
    arrays = x.reshape(-1, x.shape[-1]), place.view(-1).numpy()
    run(_argmax, place.numel(), *arrays, grain=1024)
    return place


def _steps(s: Tensor, plan: Any, part: slice) -> list[Any]:
    bias = plan.bias(part, s.dtype)
    bias = s.new_empty(0, 0, 0) if bias is None else bias
    constants = np.array([HIDDEN, SELF], dtype=s.numpy().dtype)
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
            highest = row[0]
            for j in range(W):
                highest = max(highest, row[j])
            z = row[0] - row[0]
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


@loop
def _argmax(start, stop, x, place):  # type: ignore[no-untyped-def]
    F = x.shape[1]
    for i in range(start, stop):
        x_ = x[i]
        high, low, at_high, at_low = x_[0], x_[0], 0, 0
        for f in range(1, F):
            if x_[f] > high:
                high, at_high = x_[f], f
            if x_[f] < low:
                low, at_low = x_[f], f
        place[i] = at_high if high >= -low else F + at_low


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
