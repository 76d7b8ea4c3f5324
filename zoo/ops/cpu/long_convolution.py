"""The causal convolution by transforms without padding, over channels side by side, in compiled loops.

A sequence is the polynomial Σ_t u_t x^t. As no product of two of degree n − 1 reaches x^{2n}, modulo x^n − i

    K(x) u(x) = Σ_{t<n} (y_t + i y_{t+n}) x^t

whose real part is the causal half. The transform gives a polynomial's remainders modulo x − c for the n roots c of
x^n − i: of x^m − c modulo its factors x^{m/r} − s, with s^r = c, they are Σ_j s^j a_j for r parts a_j side by side. All
numbers of a block of channels meet the same s, and the order of the roots is that of the factors, since products know
none. It is √n times a unitary map, so that gradients have conjugate spectra:

    y = Re F⁻¹(F u ⊙ F K),    du = Re F⁻¹(F dy ⊙ conj F K),    dK = Re F⁻¹(Σ_b F dy ⊙ conj F u)
"""

from __future__ import annotations

import cmath
import math
from functools import cache, reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.bfloat16 import Rows, array, narrowed, offset, rows, widened
from zoo.ops.cpu.intrinsics import LONG, Code, emits, intrinsic
from zoo.ops.cpu.jit import inlined, loop
from zoo.ops.cpu.threads import once_differentiable, run
from zoo.ops.long_convolution.fft import fast_length, work

LANES = 16
"""Channels that are transformed together."""
RADICES = (8, 5, 4, 3, 2)
NEAR = 256
"""Steps of a block whose transform stays in the innermost cache."""


def convolve(u: Tensor, K: Tensor) -> Tensor:
    """As `naive.convolve`, K in the wider dtype that is computed in."""
    return CompiledConvolve.apply(u, K)


def _sequences(x: Tensor) -> Rows:
    """A tensor (B, D, T) where it lies, as rows of one number."""
    return rows(x[..., None])


class Spectra(NamedTuple):
    u: Tensor  # (blocks, B, 2, n LANES): real parts and imaginary ones
    K: Tensor  # (blocks, 2, n LANES)


class CompiledConvolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, K: Tensor) -> Tensor:
        B, T, D = u.shape
        flops.count("long_convolution", work(B, T, D))
        n, blocks, y = fast_length(T), -(-D // LANES), u.new_empty(B, T, D)
        spectra = Spectra(u=K.new_empty(blocks, B, 2, n * LANES), K=K.new_empty(blocks, 2, n * LANES))
        plan = _plan(n, array(spectra.K).dtype)
        run(_forward, blocks, _sequences(u.mT), _sequences(K[None]), plan, spectra, _sequences(y.mT), T, D)
        ctx.save_for_backward(*spectra)
        ctx.by_channel = K.T.is_contiguous()
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        spectra, (B, T, D) = Spectra(*ctx.saved_tensors), dy.shape
        flops.count("long_convolution", work(B, T, D))
        K, du = spectra.K, dy.new_empty(B, T, D)
        dK = K.new_empty(T, D).T if ctx.by_channel else K.new_empty(D, T)
        plan = _plan(fast_length(T), array(K).dtype)
        run(_backward, len(K), _sequences(dy.mT), plan, spectra, _sequences(du.mT), _sequences(dK[None]), T, D)
        return du, dK


class _Plan(NamedTuple):
    """How x^n − i falls into factors."""

    steps: Any
    """In order: a radix, how long each of as many parts of a polynomial is, the first and the last polynomial but one
    that fall apart, and where the s of all of their level start. Short polynomials, which stay in the innermost cache,
    fall apart altogether one after the other."""
    roots: Any
    """s, s², …, s^{r−1} of the first factor of each polynomial, real and imaginary parts."""


@cache
def _plan(n: int, dtype: Any) -> _Plan:
    angles, levels, roots, at, size = np.array([math.pi / 2]), [], [], 0, n
    while size > 1:
        radix = next(r for r in RADICES if size % r == 0)
        levels.append((size, radix, len(angles), at))
        first = angles[:, None] / radix
        powers = np.exp(1j * first * np.arange(1, radix))
        roots.append(np.stack([powers.real, powers.imag], axis=-1).ravel())
        angles = (first + 2 * math.pi / radix * np.arange(radix)).ravel()
        at, size = at + len(roots[-1]), size // radix
    far, near = ([level for level in levels if (level[0] > NEAR) == long] for long in (True, False))
    steps = [(radix, size // radix * LANES, 0, count, at) for size, radix, count, at in far]
    for i in range(near[0][2] if near else 0):
        for size, radix, count, at in near:
            each = count // near[0][2]
            steps.append((radix, size // radix * LANES, i * each, (i + 1) * each, at))
    return _Plan(np.array(steps), np.concatenate(roots).astype(dtype))


@loop
def _forward(start, stop, u, K, plan, spectra, y, T, D):  # type: ignore[no-untyped-def]
    """Work items are blocks of channels."""
    B, size = spectra.u.shape[1], spectra.u.shape[3]
    re, im, scale = np.empty(size, K.memory.dtype), np.empty(size, K.memory.dtype), K.memory.dtype.type(LANES / size)
    for block in range(start, stop):
        first, K_re, K_im = block * LANES, spectra.K[block, 0], spectra.K[block, 1]
        width = min(LANES, D - first)
        _load(K, 0, first, T, width, K_re, K_im)
        _transform(K_re, K_im, plan, False)
        for b in range(B):
            u_re, u_im = spectra.u[block, b, 0], spectra.u[block, b, 1]
            _load(u, b, first, T, width, u_re, u_im)
            _transform(u_re, u_im, plan, False)
            for i in range(size):
                re[i] = u_re[i] * K_re[i] - u_im[i] * K_im[i]
                im[i] = u_re[i] * K_im[i] + u_im[i] * K_re[i]
            _transform(re, im, plan, True)
            _store(re, scale, y, b, first, T, width)


@loop
def _backward(start, stop, dy, plan, spectra, du, dK, T, D):  # type: ignore[no-untyped-def]
    B, size, dtype = spectra.u.shape[1], spectra.u.shape[3], spectra.K.dtype
    re, im, scale = np.empty(size, dtype), np.empty(size, dtype), dtype.type(LANES / size)
    sum_re, sum_im = np.empty(size, dtype), np.empty(size, dtype)
    for block in range(start, stop):
        first, K_re, K_im = block * LANES, spectra.K[block, 0], spectra.K[block, 1]
        width = min(LANES, D - first)
        sum_re[:], sum_im[:] = 0, 0
        for b in range(B):
            u_re, u_im = spectra.u[block, b, 0], spectra.u[block, b, 1]
            _load(dy, b, first, T, width, re, im)
            _transform(re, im, plan, False)
            for i in range(size):
                r, j = re[i], im[i]
                sum_re[i] += r * u_re[i] + j * u_im[i]
                sum_im[i] += j * u_re[i] - r * u_im[i]
                re[i] = r * K_re[i] + j * K_im[i]
                im[i] = j * K_re[i] - r * K_im[i]
            _transform(re, im, plan, True)
            _store(re, scale, du, b, first, T, width)
        _transform(sum_re, sum_im, plan, True)
        _store(sum_re, scale, dK, 0, first, T, width)


@inlined
def _load(x, b, first, T, width, re, im):  # type: ignore[no-untyped-def]
    """Channels from the first on, as polynomials of real numbers."""
    im[:] = 0
    re[T * LANES if width == LANES else 0 :] = 0
    of = x.memory[offset(x, b, first, 0) :]
    for t in range(T):
        to = re[t * LANES : t * LANES + width]
        for c in range(len(to)):
            to[c] = widened(of[offset(x, 0, c, t)])


@inlined
def _store(re, scale, x, b, first, T, width):  # type: ignore[no-untyped-def]
    to = x.memory[offset(x, b, first, 0) :]
    for t in range(T):
        of = re[t * LANES : t * LANES + width]
        for c in range(len(of)):
            to[offset(x, 0, c, t)] = narrowed(scale * of[c], to)


@loop
def _transform(re, im, plan, back):  # type: ignore[no-untyped-def]
    """In place; `back`, n times the inverse."""
    for i in range(len(plan.steps)):
        radix, part, first, end, at = plan.steps[len(plan.steps) - 1 - i if back else i]
        for j in range(first, end):
            _butterflies(re, im, j * radix * part, part, plan.roots, at + j * 2 * (radix - 1), 2 * radix + back)


class _Complex(NamedTuple):
    """Complex numbers of a block of channels, in code that is being emitted."""

    build: Any
    re: Any
    im: Any

    def __add__(self, other: _Complex) -> _Complex:  # type: ignore[override]
        return _Complex(self.build, self.build.fadd(self.re, other.re), self.build.fadd(self.im, other.im))

    def __sub__(self, other: _Complex) -> _Complex:
        return _Complex(self.build, self.build.fsub(self.re, other.re), self.build.fsub(self.im, other.im))

    def times(self, re: Any, im: Any) -> _Complex:
        flags = ("contract",)
        factors = (self.re, re), (self.im, im), (self.re, im), (self.im, re)
        a, b, c, d = [self.build.fmul(x, y, flags=flags) for x, y in factors]
        return _Complex(self.build, self.build.fsub(a, b, flags=flags), self.build.fadd(c, d, flags=flags))

    def rotated(self, k: int, r: int) -> _Complex:
        """Times e^{2πik/r}."""
        quarters, rest = divmod(4 * k, r)
        if rest:
            root = cmath.exp(math.tau * 1j * (k / r))
            return self.times(*(ir.Constant(self.re.type, [part] * LANES) for part in (root.real, root.imag)))
        x = self
        for _ in range(quarters % 4):
            x = _Complex(x.build, x.build.fneg(x.im), x.re)
        return x


def _sums(x: list[_Complex], sign: int) -> list[_Complex]:
    """Σ_j e^{±2πijk/r} x_j for k < r."""
    r = len(x)
    if r == 1:
        return x
    if r % 2:
        return [reduce(add, (y.rotated(sign * j * k % r, r) for j, y in enumerate(x))) for k in range(r)]
    even, odd = _sums(x[::2], sign), [z.rotated(sign * k, r) for k, z in enumerate(_sums(x[1::2], sign))]
    return [y + z for y, z in zip(even, odd, strict=True)] + [y - z for y, z in zip(even, odd, strict=True)]


@intrinsic
def _butterflies(typing: Any, re: Any, im: Any, place: Any, part: Any, roots: Any, root: Any, kind: Any) -> Any:
    """The polynomial at a place into its remainders, where `kind` is twice the radix; where it is one more, these into
    as many times the polynomial."""

    def emit(code: Code, *arguments: Any) -> None:
        build, (place, part, _, root, kind) = code.build, arguments[2:]
        data = [code.context.make_array(code.types[i])(code.context, build, arguments[i]).data for i in (0, 1, 4)]
        end = build.append_basic_block("end")
        switch = build.switch(kind, end)
        for radix in RADICES:
            for back in (False, True):
                case = build.append_basic_block(f"radix{radix}")
                switch.add_case(LONG(2 * radix + back), case)
                build.position_at_end(case)
                _emit(code, data, place, part, root, radix, back)
                build.branch(end)
        build.position_at_end(end)

    whole = types.int64
    return types.void(re, im, whole, whole, roots, whole, whole), emits(emit)


def _emit(code: Code, data: list[Any], place: Any, part: Any, root: Any, radix: int, back: bool) -> None:
    build, number = code.build, data[0].type.pointee
    vector, size = ir.VectorType(number, LANES), 4 if number == ir.FloatType() else 8
    factors = [build.load(build.gep(data[2], [build.add(root, LONG(i))])) for i in range(2 * (radix - 1))]
    parts = [code.broadcast(factor, vector) for factor in factors]
    s = list(zip(parts[::2], parts[1::2], strict=True))
    with cgutils.for_range(build, build.sdiv(part, LONG(LANES))) as each:
        at = build.add(place, build.mul(each.index, LONG(LANES)))
        offsets = [build.add(at, build.mul(part, LONG(j))) for j in range(radix)]
        addresses = [[build.bitcast(build.gep(x, [i]), vector.as_pointer()) for x in data[:2]] for i in offsets]
        x = [_Complex(build, *(build.load(address, align=size) for address in pair)) for pair in addresses]
        if back:
            y = _sums(x, -1)
            y[1:] = [z.times(re, build.fneg(im)) for z, (re, im) in zip(y[1:], s, strict=True)]
        else:
            y = _sums([x[0], *(z.times(*w) for z, w in zip(x[1:], s, strict=True))], 1)
        for z, (re, im) in zip(y, addresses, strict=True):
            build.store(z.re, re, align=size)
            build.store(z.im, im, align=size)
