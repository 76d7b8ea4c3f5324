"""Positive random features, and causal attention by them, in blocks that stay in the cache: products by torch, and
compiled loops over what they give.

    z = W x,    φ = e^{z − |x|²/2 − c} + ε;                 dz = (φ − ε) ⊙ dφ,    dx = Wᵀ dz − (Σ dz) x
    u_s = (v_s, 1),    o_t = Sᵀ φ(q_t) + Σ_{s ≤ t} φ(q_t)·φ(k_s) u_s,    S ← S + Σ_s φ(k_s) u_sᵀ,    y = o_{<V} / o_V

A block is some sequences, or a part of one, in chunks over which s and t go; S, in float32 at least, is carried along
chunks and blocks, and what products read of it is rounded to their dtype. Saved are the features, the pairs
φ(q_t)·φ(k_s) of a chunk and S before each. Pairs are at [s, t] and S is transposed, for the faster products.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops.cpu.bfloat16 import array, as_matrix, narrowed, widened
from zoo.ops.cpu.jit import exp, loop, rank, ranked
from zoo.ops.cpu.threads import run
from zoo.ops.precision import at_least_fp32
from zoo.ops.random_features.fused import highest
from zoo.ops.random_features.naive import HIGHEST, Over, kept, largest

CACHED = 1 << 21
"""Features of a block: more of them leave the caches of the cores, fewer make calls many."""
CHUNK = 128
"""Steps of a chunk, at most: with hundreds of features states are larger than the pairs of so many steps."""
GRAIN = 16
"""Steps that are one work item of a loop."""


class CompiledPositiveFeatures(torch.autograd.Function):
    """As `fused.PositiveFeatures`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, eps: float, over: Over | None, valid: Tensor | None) -> Tensor:
        x = x.contiguous()
        phi = torch.empty(*x.shape[:-1], len(W), dtype=kept(x))
        steps, out = x.flatten(0, -2), phi.flatten(0, -2)
        features, shift = _Features(W, x, eps), None
        if over == "sequence":
            shift = (
                at_least_fp32(x).new_zeros(*x.shape[:-1], 1).add_(largest(features.exponents(x), over, valid)).view(-1)
            )
        for start in range(0, len(steps), features.block):
            at = slice(start, start + features.block)
            features.into(
                out[at][None], steps[at][None], over == "features", None if shift is None else shift[at][None]
            )
        ctx.save_for_backward(x, W, phi)
        ctx.eps = eps
        return phi

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dphi: Tensor) -> tuple[Tensor | None, ...]:
        x, W, phi = ctx.saved_tensors
        dx, features = torch.empty_like(x), _Features(W, x, ctx.eps)
        all_ = [t.reshape(-1, t.shape[-1]) for t in (phi, dphi, x, dx)]
        for start in range(0, len(all_[0]), features.block):
            phi_, dphi_, x_, dx_ = (t[None, start : start + features.block] for t in all_)
            features.back(phi_, dphi_, torch.empty_like(dphi_), x_, dx_)
        return dx, None, None, None, None


class CompiledFAVOR(torch.autograd.Function):
    """y (B, T, H, V) of `naive.attend`, of q, k and v of one dtype."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, W: Tensor, eps: float) -> Tensor:
        (B, H, T, V), m = v.shape, len(W)
        q, k, v = (x.contiguous() for x in (q, k, v))
        q_, k_, v_ = (x.flatten(0, 1) for x in (q, k, v))
        C, features = min(CHUNK, T), _Features(W, q, eps)
        N, dtype = -(-T // C), kept(q)
        phi_q, phi_k = (torch.empty(B * H, N * C, m, dtype=dtype) for _ in range(2))
        pairs, before = (torch.empty(B * H, N, *shape, dtype=dtype) for shape in ((C, C), (V + 1, m)))
        y, totals = torch.empty(B, T, H, V, dtype=v.dtype), at_least_fp32(v).new_empty(B * H, T)
        S = totals.new_empty(0)
        for block in _blocks(B * H, T, C, features.block):
            if block.first:
                S = totals.new_zeros(block.sequences, V + 1, m)
            steps, chunks = block.steps, block.chunks
            asking, keys = phi_q[steps], phi_k[steps]
            features.into(asking, q_[steps], own=True)
            features.into(keys, k_[steps])
            asking, keys = (x.view(-1, C, m) for x in (asking, keys))
            u = _values(v_[steps], block, C)
            pairs_, before_ = pairs[chunks], before[chunks]
            p = torch.bmm(keys, asking.mT, out=pairs_.view(-1, C, C))
            run(_cut, len(p), p)
            added = (u.mT @ keys).view_as(before_)
            run(_carry, len(S) * (V + 1), added, S, before_, False)
            o = (p.mT @ u).baddbmm_(asking, before_.view(-1, V + 1, m).mT)
            o = o.view(block.sequences, -1, V + 1)
            run(_divide, block.items, *block.place, H, o, y, totals)
        ctx.save_for_backward(q, k, v, W, phi_q, phi_k, pairs, before, y, totals)
        ctx.eps = eps
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, W, phi_q, phi_k, pairs, before, y, totals = ctx.saved_tensors
        (B, H, T, V), m, C = v.shape, len(W), pairs.shape[-1]
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        q_, k_, v_, dq_, dk_, dv_ = (x.flatten(0, 1) for x in (q, k, v, dq, dk, dv))
        features, dS = _Features(W, q, ctx.eps), totals.new_empty(0)
        for block in reversed(list(_blocks(B * H, T, C, features.block))):
            if block.last:
                dS = totals.new_zeros(block.sequences, V + 1, m)
            steps, chunks = block.steps, block.chunks
            asking, keys = (x[steps].view(-1, C, m) for x in (phi_q, phi_k))
            u, before_ = _values(v_[steps], block, C), before[chunks].view(-1, V + 1, m)
            do = torch.empty_like(u)
            asked = [dy, y, totals, do.view(block.sequences, -1, V + 1)]
            run(_ask, block.items, *block.place, H, *asked)
            told = (do.mT @ asking).view(block.sequences, -1, V + 1, m)
            after = torch.empty_like(told)
            run(_carry, len(dS) * (V + 1), told, dS, after, True)
            after = after.view(-1, V + 1, m)
            dp = u @ do.mT
            run(_cut, len(dp), dp)
            du = (pairs[chunks].view(-1, C, C) @ do).baddbmm_(keys, after.mT)
            dv_[steps] = du.view(block.sequences, -1, V + 1)[:, : block.length, :V]
            dkeys = (dp @ asking).baddbmm_(u, after).view(block.sequences, -1, m)
            features.back(phi_k[steps], dkeys, dkeys, k_[steps], dk_[steps])
            dasking = (dp.mT @ keys).baddbmm_(do, before_).view(block.sequences, -1, m)
            features.back(phi_q[steps], dasking, dasking, q_[steps], dq_[steps])
        return dq, dk, dv, None, None


class _Block(NamedTuple):
    """Some sequences, or a part of one."""

    steps: tuple[slice, slice]
    chunks: tuple[slice, slice]
    sequences: int
    length: int
    """Steps there are of each sequence."""
    room: int
    """Steps of its chunks."""
    first: bool
    last: bool

    @property
    def items(self) -> int:
        """Of loops over its steps."""
        return self.sequences * -(-self.room // GRAIN)

    @property
    def place(self) -> tuple[int, int, int]:
        """For loops: where it begins, and its length."""
        return self.steps[0].start, self.steps[1].start, self.length


def _blocks(sequences: int, T: int, C: int, size: int) -> Iterator[_Block]:
    """Blocks of `size` steps, or one chunk of C, those of a sequence one after another."""
    N = -(-T // C)
    chunks = -(-N // -(-N // max(size // C, 1)))  # as many in each block of a sequence
    together = max(size // (N * C), 1)
    for s in range(0, sequences, together):
        many = slice(s, min(s + together, sequences))
        for n in range(0, N, chunks):
            stop = min(n + chunks, N)
            steps = slice(n * C, stop * C)
            yield _Block(
                (many, steps),
                (many, slice(n, stop)),
                many.stop - s,
                min(stop * C, T) - n * C,
                (stop - n) * C,
                n == 0,
                stop == N,
            )


def _values(v: Float[Tensor, "s t V"], block: _Block, C: int) -> Float[Tensor, "n C V+1"]:
    """u, 0 behind the last step."""
    s, t, V = v.shape
    u = v.new_empty(s, block.room, V + 1)
    u[:, :t, :V], u[:, :t, V], u[:, t:] = v, 1, 0
    return u.view(-1, C, V + 1)


class _Features:
    """φ by W of vectors like x, a block of steps at a time."""

    def __init__(self, W: Tensor, x: Tensor, eps: float) -> None:
        scale = x.shape[-1] ** -0.25
        self.scaled = W.to(at_least_fp32(x).dtype) * scale
        self.narrow = self.scaled.to(kept(x))
        self.block = max(CACHED // len(W), GRAIN)
        self.numbers = array(self.scaled.new_tensor([scale**2, HIGHEST, highest(kept(x)), eps]))

    def exponents(self, x: Float[Tensor, "*N d"]) -> Float[Tensor, "*N m"]:
        """W x."""
        return at_least_fp32(x) @ self.scaled.T

    def into(
        self,
        phi: Float[Tensor, "s r m"],
        x: Float[Tensor, "s t d"],
        own: bool = False,
        shift: Float[Tensor, "s t"] | None = None,
    ) -> None:
        """φ(x), and 0 for steps that x lacks, less `shift` in the exponents, and the largest of a step if `own`."""
        z = self.exponents(x)
        shift = z.new_zeros(x.shape[:2]) if shift is None else shift
        arrays = [z, x, shift, phi]
        run(_features, len(phi) * -(-phi.shape[1] // GRAIN), *arrays, self.numbers, own)

    def back(
        self,
        phi: Float[Tensor, "s r m"],
        dphi: Float[Tensor, "s r m"],
        dz: Float[Tensor, "s r m"],
        x: Float[Tensor, "s t d"],
        dx: Float[Tensor, "s t d"],
    ) -> None:
        """dx of dφ; dz may be dφ."""
        sums = self.scaled.new_empty(phi.shape[:2])
        arrays = [as_matrix(t) for t in (phi, dphi, dz)]
        run(_slopes, sums.numel(), *arrays, sums.view(-1), self.numbers, grain=GRAIN)
        of_z = dz @ self.narrow
        run(_emit, len(x) * -(-x.shape[1] // GRAIN), of_z, sums, x, dx, self.numbers)


@loop
def _features(start, stop, z, x, shift, phi, numbers, own):  # type: ignore[no-untyped-def]
    """φ of z = W x, 0 for steps that are not there; the largest of z is taken off as well if `own`."""
    (_, room, m), (_, T, d) = phi.shape, x.shape
    square, highest, eps = numbers[0], numbers[1], numbers[3]
    half, N = square / numbers.dtype.type(2), -(-room // GRAIN)
    line, value = np.empty(m, z.dtype), np.empty(m, phi.dtype)
    for item in range(start, stop):
        s, first = item // N, item % N * GRAIN
        for t in range(first, min(first + GRAIN, T)):
            z_, x_, out = z[s, t], x[s, t], phi[s, t]
            length = half - half
            for c in range(d):
                length += widened(x_[c]) * widened(x_[c])
            less = half * length + shift[s, t]
            if own:
                top = rank(z_[0])
                for c in range(m):
                    top = max(top, rank(z_[c]))
                less += ranked(top)
            for c in range(m):
                line[c] = min(z_[c] - less, highest)
            for c in range(m):
                line[c] = exp(line[c]) + eps
            for c in range(m):
                value[c] = narrowed(line[c], value)
            for c in range(m):
                out[c] = value[c]
        for t in range(max(first, T), min(first + GRAIN, room)):
            phi[s, t] = 0


@loop
def _slopes(start, stop, phi, dphi, dz, sums, numbers):  # type: ignore[no-untyped-def]
    """Work items are steps. dz and its sum over features; no slope from the highest feature on."""
    m = phi.shape[1]
    highest, eps = numbers[2], numbers[3]
    line, value = np.empty(m, sums.dtype), np.empty(m, dz.dtype)
    for t in range(start, stop):
        phi_, dphi_, out = phi[t], dphi[t], dz[t]
        total = eps - eps
        for c in range(m):
            f = widened(phi_[c])
            line[c] = (f - eps) * widened(dphi_[c]) if f < highest else total
        for c in range(m):
            total += line[c]
        sums[t] = total
        for c in range(m):
            value[c] = narrowed(line[c], value)
        for c in range(m):
            out[c] = value[c]


@loop
def _emit(start, stop, of_z, sums, x, dx, numbers):  # type: ignore[no-untyped-def]
    """dx: what z gives, and |x|²/2."""
    _, T, d = x.shape
    N, value = -(-T // GRAIN), np.empty(d, dx.dtype)
    for item in range(start, stop):
        s, first = item // N, item % N * GRAIN
        for t in range(first, min(first + GRAIN, T)):
            of, x_, out = of_z[s, t], x[s, t], dx[s, t]
            total = sums[s, t] * numbers[0]
            for c in range(d):
                value[c] = narrowed(widened(of[c]) - total * widened(x_[c]), value)
            for c in range(d):
                out[c] = value[c]


@loop
def _cut(start, stop, pairs):  # type: ignore[no-untyped-def]
    """Work items are chunks. 0 where s > t."""
    for n in range(start, stop):
        for s in range(pairs.shape[1]):
            pairs[n, s, :s] = 0


@loop
def _carry(start, stop, added, S, states, back):  # type: ignore[no-untyped-def]
    """Work items are values of a sequence. S before each chunk, and on; or `back`, from the last chunk to the first."""
    _, N, V, m = added.shape
    line, value = np.empty(m, S.dtype), np.empty(m, states.dtype)
    for item in range(start, stop):
        s, i = item // V, item % V
        line[:] = S[s, i]
        for step in range(N):
            n = N - 1 - step if back else step
            more, out = added[s, n, i], states[s, n, i]
            for c in range(m):
                value[c] = narrowed(line[c], value)
            for c in range(m):
                out[c] = value[c]
            for c in range(m):
                line[c] += widened(more[c])
        S[s, i] = line


@loop
def _divide(start, stop, sequence, origin, length, H, o, y, totals):  # type: ignore[no-untyped-def]
    """y, and what it was divided by."""
    V, N, one = y.shape[3], -(-o.shape[1] // GRAIN), totals.dtype.type(1)
    value = np.empty(V, y.dtype)
    for item in range(start, stop):
        s, first = item // N, item % N * GRAIN
        b, h, place = (sequence + s) // H, (sequence + s) % H, totals[sequence + s, origin : origin + length]
        for t in range(first, min(first + GRAIN, length)):
            of, out = o[s, t], y[b, origin + t, h]
            total = widened(of[V]) + (one - one)
            place[t] = total
            share = one if total == 0 else one / total
            for c in range(V):
                value[c] = narrowed(widened(of[c]) * share, value)
            for c in range(V):
                out[c] = value[c]


@loop
def _ask(start, stop, sequence, origin, length, H, dy, y, totals, do):  # type: ignore[no-untyped-def]
    """do of dy, 0 for steps that are not there."""
    _, room, V = do.shape
    V, N, one = V - 1, -(-room // GRAIN), totals.dtype.type(1)
    value = np.empty(V, do.dtype)
    for item in range(start, stop):
        s, first = item // N, item % N * GRAIN
        b, h, place = (sequence + s) // H, (sequence + s) % H, totals[sequence + s, origin : origin + length]
        for t in range(first, min(first + GRAIN, length)):
            dy_, y_, out, total = dy[b, origin + t, h], y[b, origin + t, h], do[s, t], place[t]
            share, met = one if total == 0 else one / total, one - one
            for c in range(V):
                met += widened(dy_[c]) * widened(y_[c])
            for c in range(V):
                value[c] = narrowed(widened(dy_[c]) * share, value)
            for c in range(V):
                out[c] = value[c]
            out[V] = narrowed(one - one if total == 0 else -met * share, do)
        for t in range(max(first, length), min(first + GRAIN, room)):
            do[s, t] = 0
