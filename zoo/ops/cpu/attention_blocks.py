"""Softmax attention in blocks of queries: products by torch, and all that is between them in one compiled pass.

    s = scale q kᵀ + bias,    lse = log Σ e^s,    p = e^{s − lse},    y = p v

Only the scores of one block exist at a time, and of causal attention only those up to its last query (as in Dao et al.
2022, arXiv:2205.14135, which cuts keys into blocks as well). Where there are matrix tiles, plain scores go to torch's
own kernel of that kind forward (`flash`) and to blocks back. Kept are lse and y; the backward pass makes s again:

    dp = dy vᵀ,    ds = p (dp − Σ dy y),    dq = scale ds k,    dk = scale dsᵀ q,    dv = pᵀ dy

It does so transposed, sᵀ = k qᵀ: there no row has to be summed, and of the five products only one has its long matrix
transposed, which torch's bfloat16 products take twice as long for.

The R query heads that share a head of keys are rows of one product. In bfloat16 products are rounded to it, as under
autocast; the softmax, lse and sums over blocks are float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.attention import flash
from zoo.ops.cpu.bfloat16 import array, narrowed, widened
from zoo.ops.cpu.jit import exp, inlined, loop, rank, ranked
from zoo.ops.cpu.threads import run
from zoo.ops.kernel_log import log_kernel
from zoo.ops.precision import at_least_fp32, no_autocast

ROWS = 256
"""Rows of a block at most, queries times R: more would make products faster, and causal ones score more in vain."""
SCORES = 1 << 22
"""Scores of a block at most, where more than one head would fit in: each step of a block has to call all threads."""


class CompiledAttention(torch.autograd.Function):
    """`naive.attend` on a CPU: y (N, R, T, V) from q (N, R, T, K), k (N, S, K), v (N, S, V) with N = B·G.

    `visible` and `bias` are (B, H, T, S), where all but S may be 1.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        visible: Tensor | None,
        bias: Tensor | None,
        groups: int,
        causal: bool,
        scale: float,
    ) -> Tensor:
        (N, R, T, _), S = q.shape, k.shape[1]
        exact = visible is None and bias is None and flash.serves(q, k, v, causal)
        ctx.options = groups, causal, scale, exact
        if exact:
            log_kernel("attention", "torch flash forward, compiled blocks back")
            y, lse = flash.attend(q, k, v, causal, scale)
            ctx.save_for_backward(q, k, v, visible, bias, lse, y)
            return y
        log_kernel("attention", "compiled blocks")
        lse = torch.empty(N, R, T, dtype=at_least_fp32(q).dtype)
        y = q.new_empty(N, R, T, v.shape[2])
        common = *_extras(lse, visible, bias), groups, S, causal, _number(scale, lse), lse
        scores, computed = Scratch(q), 0
        with no_autocast(q.device):
            for heads, queries, keys in blocks(N, R, T, S, causal):
                s = scores.product(q[heads, :, queries].flatten(1, 2), _first(k[heads], keys).mT)
                run(_softmax, queries.stop - queries.start, *common, heads.start, queries.start, s)
                y[heads, :, queries] = torch.bmm(s, _first(v[heads], keys)).unflatten(1, (R, -1))
                computed += s.numel()
        flops.count("attention", 2 * (N * R * T * S - computed) * (q.shape[3] + v.shape[2]))
        ctx.save_for_backward(q, k, v, visible, bias, lse, y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, visible, bias, lse, y = ctx.saved_tensors
        groups, causal, scale, exact = ctx.options
        (N, R, T, _), S = q.shape, k.shape[1]
        dy, dq = dy.contiguous(), torch.empty_like(q)
        alloc = torch.empty_like if T else torch.zeros_like  # the first block fills it
        dk, dv = (alloc(x, dtype=lse.dtype) for x in (k, v))
        dbias = None
        if bias is not None and ctx.needs_input_grad[4]:
            dbias = bias.new_zeros(*bias.shape[:2], T, S, dtype=lse.dtype)
        # Rounded to bfloat16, s alone is not what an lse of exact scores belongs to; s − lse is, wherever p counts.
        asked, keyed = _with_lse(q, k, lse, scale) if exact else (q, k)
        common = *_extras(lse, visible, bias), _rows(dbias, lse), groups, S, causal, _number(scale, lse)
        saved = torch.zeros_like(lse) if exact else lse, y, dy
        scores, slopes, part_of_dk, part_of_dv = (Scratch(q) for _ in range(4))
        computed = 0
        with no_autocast(q.device):
            for heads, queries, keys in blocks(N, R, T, S, causal):
                q_, dy_ = q[heads, :, queries].flatten(1, 2), dy[heads, :, queries].flatten(1, 2)
                k_, v_ = _first(k[heads], keys), _first(v[heads], keys)
                s = scores.product(_first(keyed[heads], keys), asked[heads, :, queries].flatten(1, 2).mT)
                dp = slopes.product(v_, dy_.mT)
                run(_gradients, keys, *common, *saved, heads.start, queries.start, s, dp)
                p, ds = s, dp  # in place
                dq[heads, :, queries] = torch.bmm(ds.mT, k_).unflatten(1, (R, -1))
                more_dk, more_dv = part_of_dk.product(ds, q_), part_of_dv.product(p, dy_)
                fresh = queries.stop == T
                run(_add, keys, fresh, dk[heads], more_dk, dv[heads], more_dv)
                computed += s.numel()
        useful = (N * R * T * S - computed) * (3 * q.shape[3] + 2 * v.shape[2])
        flops.count("attention", 2 * (useful - computed * (asked.shape[3] - q.shape[3])))
        if dbias is not None:
            dbias = dbias.sum_to_size(bias.shape).to(bias.dtype)
        return dq, dk.to(k.dtype), dv.to(v.dtype), None, dbias, None, None, None


def blocks(N: int, R: int, T: int, S: int, causal: bool) -> Iterator[tuple[slice, slice, int]]:
    """Heads and queries of every block, and how many keys, from the first on, its queries may see.

    The last queries come first: they see all keys, so that sums over blocks start with theirs.
    """
    rows = -(-ROWS // R)
    for start in reversed(range(0, T, rows)):
        stop = min(start + rows, T)
        keys = min(max(stop + S - T, 1), S) if causal else S
        heads = max(SCORES // (R * (stop - start) * keys), 1)
        for n in range(0, N, heads):
            yield slice(n, min(n + heads, N)), slice(start, stop), keys


def _with_lse(q: Tensor, k: Tensor, lse: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """q and k with more features, so that their products are q kᵀ − lse / scale: as many as hold a float32."""
    left, parts = -lse / scale, []
    for _ in range(3):
        parts.append(left.to(q.dtype))
        left = left - parts[-1]
    return torch.cat([q, torch.stack(parts, -1)], -1), torch.cat([k, k.new_ones(*k.shape[:2], len(parts))], -1)


def _first(x: Tensor, keys: int) -> Tensor:
    """The first keys, contiguous by their strides too: torch's bfloat16 product copies any other transposed matrix."""
    return x[:, :keys].reshape(-1, x.shape[2]).view(len(x), keys, -1)


class Scratch:
    """Memory for one block after another."""

    def __init__(self, like: Tensor) -> None:
        self.memory = like.new_empty(0)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """a b, where the last product was."""
        shape = (*a.shape[:2], b.shape[2])
        if self.memory.numel() < math.prod(shape):
            self.memory = self.memory.new_empty(math.prod(shape))
        return torch.bmm(a, b, out=self.memory[: math.prod(shape)].view(shape))


def _extras(like: Tensor, visible: Tensor | None, bias: Tensor | None) -> tuple[Any, Any]:
    seen = np.empty((0, 0, 0, 0), np.bool_) if visible is None else visible
    return seen, _rows(bias, like)


def _rows(x: Tensor | None, like: Tensor) -> Any:
    return array(like.new_empty(0, 0, 0, 0) if x is None else x.to(like.dtype))


def _number(x: float, like: Tensor) -> Any:
    return array(like.new_tensor(x))[()]


@loop
def _softmax(start, stop, visible, bias, groups, S, causal, scale, lse, first, origin, s):  # type: ignore[no-untyped-def]
    """Scores become weights, and lse is written, for queries `start` to `stop` of a block that begins at `origin`."""
    heads, rows, keys = s.shape
    _, R, T = lse.shape
    size = rows // R
    scratch = np.empty(keys, lse.dtype)
    empty = lse.dtype.type(-np.inf)
    for item in range(heads * R * (stop - start)):
        n, r, i = item // (R * (stop - start)), item // (stop - start) % R, start + item % (stop - start)
        b, g, t = (first + n) // groups, (first + n) % groups, origin + i
        seen = max(min(keys, t + S - T + 1), 0) if causal else keys
        x, row = scratch[:seen], s[n, r * size + i]
        highest = rank(empty)
        for j in range(seen):
            score = widened(row[j]) * scale
            x[j] = score
            highest = max(highest, rank(score))
        if bias.size > 0 or visible.size > 0:
            _restrict(x, bias, visible, b, g * R + r, t, empty)
            highest = rank(empty)
            for j in range(seen):
                highest = max(highest, rank(x[j]))
        top = ranked(highest)
        total = lse.dtype.type(0)
        if top > empty:
            for j in range(seen):
                e = exp(x[j] - top)
                x[j] = e
                total += e
            lse[first + n, r, t] = top + np.log(total)
            inverse = lse.dtype.type(1) / total
            for j in range(seen):
                row[j] = narrowed(x[j] * inverse, row)
            row[seen:] = 0
        else:
            lse[first + n, r, t] = -empty
            row[:] = 0


@loop
def _gradients(  # type: ignore[no-untyped-def]
    start, stop, visible, bias, dbias, groups, S, causal, scale, lse, y, dy, first, origin, s, dp
):
    """Scores, sᵀ, become weights and dpᵀ becomes scale dsᵀ, for keys `start` to `stop`; as `_softmax`."""
    heads, _, rows = s.shape
    _, R, T = lse.shape
    size = rows // R
    empty = lse.dtype.type(-np.inf)
    weight, slope = np.empty(size, lse.dtype), np.empty(size, lse.dtype)
    mean, norm = np.empty(size, lse.dtype), np.empty(size, lse.dtype)
    for n in range(heads):
        b, g = (first + n) // groups, (first + n) % groups
        for r in range(R):
            for i in range(size):
                norm[i] = lse[first + n, r, origin + i]
                result, change = y[first + n, r, origin + i], dy[first + n, r, origin + i]
                total = lse.dtype.type(0)
                for c in range(len(result)):
                    total += widened(result[c]) * widened(change[c])
                mean[i] = total
            for j in range(start, stop):
                row, drow = s[n, j, r * size : (r + 1) * size], dp[n, j, r * size : (r + 1) * size]
                for i in range(size):
                    weight[i] = widened(row[i]) * scale
                if bias.size > 0:
                    added = _head(bias, b, g * R + r)
                    for i in range(size):
                        weight[i] += added[min(origin + i, len(added) - 1), j]
                if visible.size > 0:
                    shown = _head(visible, b, g * R + r)
                    for i in range(size):
                        weight[i] = weight[i] if shown[min(origin + i, len(shown) - 1), j] else empty
                for i in range(size):
                    weight[i] = exp(weight[i] - norm[i])
                blind = min(max(j - (S - T) - origin, 0), size) if causal else 0
                weight[:blind] = 0
                for i in range(size):
                    slope[i] = weight[i] * (widened(drow[i]) - mean[i])
                if dbias.size > 0:
                    out = _head(dbias, b, g * R + r)
                    for i in range(size):
                        out[origin + i, j] += slope[i]
                for i in range(size):
                    row[i] = narrowed(weight[i], row)
                for i in range(size):
                    drow[i] = narrowed(slope[i] * scale, drow)


@loop
def _add(start, stop, fresh, dk, more_dk, dv, more_dv):  # type: ignore[no-untyped-def]
    """Sums of heads, (n, S, C), plus (n, keys, C), for keys `start` to `stop`; or these alone, if they are `fresh`."""
    k, v = np.empty(dk.shape[2], dk.dtype), np.empty(dv.shape[2], dv.dtype)
    for n in range(len(more_dk)):
        for j in range(start, stop):
            _accumulate(dk[n, j], more_dk[n, j], k, fresh)
            _accumulate(dv[n, j], more_dv[n, j], v, fresh)


@inlined
def _accumulate(sums, more, scratch, fresh):  # type: ignore[no-untyped-def]
    for c in range(len(scratch)):
        scratch[c] = widened(more[c])
    if not fresh:
        for c in range(len(scratch)):
            scratch[c] += sums[c]
    for c in range(len(scratch)):
        sums[c] = scratch[c]


@inlined
def _head(x, b, h):  # type: ignore[no-untyped-def]
    """Head h of batch row b of an array that may have one for all of either."""
    return x[min(b, x.shape[0] - 1), min(h, x.shape[1] - 1)]


@inlined
def _restrict(x, bias, visible, b, h, t, empty):  # type: ignore[no-untyped-def]
    """Row t of head h: what is added to its scores, and which of them are left."""
    if bias.size > 0:
        rows = _head(bias, b, h)
        added = rows[min(t, len(rows) - 1)]
        for j in range(len(x)):
            x[j] += added[j]
    if visible.size > 0:
        seen = _head(visible, b, h)
        shown = seen[min(t, len(seen) - 1)]
        for j in range(len(x)):
            x[j] = x[j] if shown[j] else empty
