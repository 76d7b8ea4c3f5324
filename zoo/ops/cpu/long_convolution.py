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
from fractions import Fraction
from functools import cache, reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from llvmlite import ir
from numba.core import cgutils, types
from torch import Tensor

from zoo.ops import flops
from zoo.ops.cpu.bfloat16 import array, memory, narrowed, widened
from zoo.ops.cpu.intrinsics import intrinsic
from zoo.ops.cpu.jit import called, inlined, loop
from zoo.ops.cpu.threads import run
from zoo.ops.long_convolution.fft import fast_length, work

LANES = 16
"""Channels that are transformed together."""
RADICES = (8, 5, 4, 3, 2)
NEAR = 256
"""Steps of a block whose transform stays in the innermost cache."""


class CompiledConvolve(torch.autograd.Function):
    """As `naive.convolve`, K and the skip in the wider dtype that is computed in."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, K: Tensor, skip: Tensor) -> Tensor:
        B, T, D = u.shape
        flops.count("long_convolution", work(B, T, D))
        u, K = _channels_last(u), K if _across(K) else K.contiguous()
        n, blocks, y = fast_length(T), -(-D // LANES), u.new_empty(B, T, D)
        U, F = (K.new_empty(*shape, 2, n * LANES) for shape in ((blocks, B), (blocks,)))
        inputs = memory(u), *u.stride()[:2], memory(K), *K.stride(), skip.contiguous()
        run(_forward, blocks, *inputs, *_plan(n, array(F).dtype), U, F, y)
        ctx.save_for_backward(U, F)
        ctx.across = _across(K)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        U, F = ctx.saved_tensors
        B, T, D = dy.shape
        flops.count("long_convolution", work(B, T, D))
        dy, du = _channels_last(dy), dy.new_empty(B, T, D)
        dK, dskip = F.new_empty(T, D).T if ctx.across else F.new_empty(D, T), F.new_empty(D)
        outputs = du, memory(dK), *dK.stride(), dskip
        run(_backward, len(F), memory(dy), *dy.stride()[:2], *_plan(fast_length(T), array(F).dtype), U, F, *outputs)
        return du, dK, dskip


def _channels_last(x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    return x if x.stride(2) == 1 else x.contiguous()


def _across(K: Float[Tensor, "D T"]) -> bool:
    """Whether channels lie side by side, not steps."""
    return K.T.is_contiguous()


class _Plan(NamedTuple):
    """How x^n − i falls into factors, level by level."""

    levels: Any
    """Of each: its radix, how many polynomials it takes apart, and where their s start."""
    near: int
    """The first level of polynomials no longer than `NEAR`."""
    roots: Any
    """s, s², …, s^{r−1} of the first factor of each polynomial, real and imaginary parts."""


@cache
def _plan(n: int, dtype: Any) -> _Plan:
    angles, levels, roots, at, near, size = np.array([math.pi / 2]), [], [], 0, 0, n
    while size > 1:
        radix = next(r for r in RADICES if size % r == 0)
        near += size > NEAR
        levels.append((radix, len(angles), at))
        first = angles[:, None] / radix
        powers = np.exp(1j * first * np.arange(1, radix))
        roots.append(np.stack([powers.real, powers.imag], axis=-1).ravel())
        angles = (first + 2 * math.pi / radix * np.arange(radix)).ravel()
        at, size = at + len(roots[-1]), size // radix
    return _Plan(np.array(levels), near, np.concatenate(roots).astype(dtype))


@loop
def _forward(start, stop, u, row, step, K, across, along, skip, levels, near, roots, U, F, y):  # type: ignore[no-untyped-def]
    """Work items are blocks of channels."""
    (_, B, _, size), (_, T, D) = U.shape, y.shape
    re, im, scale = np.empty(size, U.dtype), np.empty(size, U.dtype), U.dtype.type(LANES) / U.dtype.type(size)
    for block in range(start, stop):
        first = block * LANES
        width, K_re, K_im = min(LANES, D - first), F[block, 0], F[block, 1]
        _load(K[first * across :], along, across, T, width, K_re, K_im)
        for c in range(width):
            K_re[c] += skip[first + c]
        _transform(K_re, K_im, levels, near, roots)
        for b in range(B):
            u_re, u_im = U[block, b, 0], U[block, b, 1]
            _load(u[b * row + first :], step, 1, T, width, u_re, u_im)
            _transform(u_re, u_im, levels, near, roots)
            for i in range(size):
                re[i] = u_re[i] * K_re[i] - u_im[i] * K_im[i]
                im[i] = u_re[i] * K_im[i] + u_im[i] * K_re[i]
            _transform_back(re, im, levels, near, roots)
            _emit(re, scale, D, 1, T, width, y[b].ravel()[first:])


@loop
def _backward(start, stop, dy, row, step, levels, near, roots, U, F, du, dK, across, along, dskip):  # type: ignore[no-untyped-def]
    (_, B, _, size), (_, T, D) = U.shape, du.shape
    re, im, scale = np.empty(size, U.dtype), np.empty(size, U.dtype), U.dtype.type(LANES) / U.dtype.type(size)
    sum_re, sum_im = np.empty(size, U.dtype), np.empty(size, U.dtype)
    for block in range(start, stop):
        first = block * LANES
        width, K_re, K_im = min(LANES, D - first), F[block, 0], F[block, 1]
        sum_re[:], sum_im[:] = 0, 0
        for b in range(B):
            u_re, u_im = U[block, b, 0], U[block, b, 1]
            _load(dy[b * row + first :], step, 1, T, width, re, im)
            _transform(re, im, levels, near, roots)
            for i in range(size):
                r, j = re[i], im[i]
                sum_re[i] += r * u_re[i] + j * u_im[i]
                sum_im[i] += j * u_re[i] - r * u_im[i]
                re[i] = r * K_re[i] + j * K_im[i]
                im[i] = j * K_re[i] - r * K_im[i]
            _transform_back(re, im, levels, near, roots)
            _emit(re, scale, D, 1, T, width, du[b].ravel()[first:])
        _transform_back(sum_re, sum_im, levels, near, roots)
        for c in range(width):
            dskip[first + c] = sum_re[c] * scale
        _emit(sum_re, scale, along, across, T, width, dK[first * across :])


@inlined
def _load(x, step, across, T, width, re, im):  # type: ignore[no-untyped-def]
    """Polynomials of real numbers, `step` from one to the next and `across` from channel to channel."""
    im[:] = 0
    re[T * LANES :] = 0
    if width < LANES:
        re[:] = 0
    if across == 1:
        for t in range(T):
            of, to = x[t * step : t * step + width], re[t * LANES : t * LANES + width]
            for c in range(len(to)):
                to[c] = widened(of[c])
    else:
        for c in range(width):
            of = x[c * across :]
            for t in range(T):
                re[t * LANES + c] = widened(of[t * step])


@inlined
def _emit(re, scale, step, across, T, width, x):  # type: ignore[no-untyped-def]
    if across == 1:
        for t in range(T):
            of, to = re[t * LANES : t * LANES + width], x[t * step : t * step + width]
            for c in range(len(to)):
                to[c] = narrowed(scale * of[c], to)
    else:
        for c in range(width):
            to = x[c * across :]
            for t in range(T):
                to[t * step] = narrowed(scale * re[t * LANES + c], to)


@inlined
def _transform(re, im, levels, near, roots):  # type: ignore[no-untyped-def]
    """In place: level by level, those of near polynomials one polynomial after the other."""
    for level in range(near):
        _split(re, im, levels, level, 0, levels[level, 1], roots, False)
    if near < len(levels):
        for part in range(levels[near, 1]):
            for level in range(near, len(levels)):
                parts = levels[level, 1] // levels[near, 1]
                _split(re, im, levels, level, part * parts, part * parts + parts, roots, False)


@inlined
def _transform_back(re, im, levels, near, roots):  # type: ignore[no-untyped-def]
    """n times the inverse."""
    if near < len(levels):
        for part in range(levels[near, 1]):
            for level in range(len(levels) - 1, near - 1, -1):
                parts = levels[level, 1] // levels[near, 1]
                _split(re, im, levels, level, part * parts, part * parts + parts, roots, True)
    for level in range(near - 1, -1, -1):
        _split(re, im, levels, level, 0, levels[level, 1], roots, True)


@called
def _split(re, im, levels, level, start, stop, roots, back):  # type: ignore[no-untyped-def]
    """Polynomials start … stop − 1 of a level into their factors, or `back`."""
    radix, polynomials, at = levels[level]
    part, step = len(re) // polynomials // radix, 2 * (radix - 1)
    for i in range(start, stop):
        place, root = i * radix * part, at + i * step
        if back:
            if radix == 8:
                _merge_8(re, im, place, part, roots, root)
            elif radix == 5:
                _merge_5(re, im, place, part, roots, root)
            elif radix == 4:
                _merge_4(re, im, place, part, roots, root)
            elif radix == 3:
                _merge_3(re, im, place, part, roots, root)
            else:
                _merge_2(re, im, place, part, roots, root)
        elif radix == 8:
            _split_8(re, im, place, part, roots, root)
        elif radix == 5:
            _split_5(re, im, place, part, roots, root)
        elif radix == 4:
            _split_4(re, im, place, part, roots, root)
        elif radix == 3:
            _split_3(re, im, place, part, roots, root)
        else:
            _split_2(re, im, place, part, roots, root)


class _Lanes(NamedTuple):
    """Complex numbers of a block of channels."""

    build: Any
    re: Any
    im: Any

    def plus(self, other: _Lanes) -> _Lanes:
        return self._two("fadd", other)

    def minus(self, other: _Lanes) -> _Lanes:
        return self._two("fsub", other)

    def _two(self, name: str, other: _Lanes) -> _Lanes:
        return _Lanes(self.build, *(getattr(self.build, name)(x, y) for x, y in zip(self[1:], other[1:], strict=True)))

    def times(self, re: Any, im: Any) -> _Lanes:
        multiply, kept = self.build.fmul, ("contract",)
        products = (multiply(x, y, flags=kept) for x, y in ((self.re, re), (self.im, im), (self.re, im), (self.im, re)))
        a, b, c, d = products
        return _Lanes(self.build, self.build.fsub(a, b, flags=kept), self.build.fadd(c, d, flags=kept))

    def turned(self, turn: Fraction) -> _Lanes:
        """Times e^{2πi turn}."""
        quarters, rest = divmod(turn * 4, 1)
        x = self
        if rest:
            angle = cmath.exp(math.tau * 1j * float(turn))
            return x.times(*(ir.Constant(self.re.type, [part] * LANES) for part in (angle.real, angle.imag)))
        for _ in range(int(quarters) % 4):
            x = _Lanes(x.build, x.build.fneg(x.im), x.re)
        return x


def _sums(x: list[_Lanes], sign: int) -> list[_Lanes]:
    """Σ_j e^{±2πijk/r} x_j for k < r."""
    r = len(x)
    if r == 1:
        return x
    if r % 2 == 0:
        even, odd = _sums(x[::2], sign), _sums(x[1::2], sign)
        odd = [y.turned(Fraction(sign * k, r)) for k, y in enumerate(odd)]
        return [y.plus(z) for y, z in zip(even, odd, strict=True)] + [
            y.minus(z) for y, z in zip(even, odd, strict=True)
        ]
    return [reduce(_Lanes.plus, (y.turned(Fraction(sign * j * k, r) % 1) for j, y in enumerate(x))) for k in range(r)]


def _factors(radix: int, back: bool) -> Any:
    """A polynomial of `radix` parts into its remainders, or `radix` times the parts of these."""

    @intrinsic
    def run(typing: Any, re: Any, im: Any, place: Any, part: Any, roots: Any, root: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            number = context.get_data_type(signature.args[0].dtype)
            line, size = ir.VectorType(number, LANES), context.get_abi_alignment(number)
            data = [context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 1, 4)]
            place, part, root = arguments[2], arguments[3], arguments[5]

            def broadcast(i: int) -> Any:
                value = builder.load(builder.gep(data[2], [builder.add(root, ir.Constant(root.type, i))]))
                vector = builder.insert_element(ir.Constant(line, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
                none = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
                return builder.shuffle_vector(vector, ir.Constant(line, ir.Undefined), none)

            s = [(broadcast(2 * j), broadcast(2 * j + 1)) for j in range(radix - 1)]
            with cgutils.for_range(builder, builder.sdiv(part, ir.Constant(part.type, LANES))) as each:
                first = builder.add(place, builder.mul(each.index, ir.Constant(part.type, LANES)))
                offsets = [builder.add(first, builder.mul(part, ir.Constant(part.type, j))) for j in range(radix)]
                places = [
                    [builder.bitcast(builder.gep(array, [at]), line.as_pointer()) for array in data[:2]]
                    for at in offsets
                ]
                x = [_Lanes(builder, *(builder.load(of, align=size) for of in pair)) for pair in places]
                if back:
                    y = _sums(x, -1)
                    y[1:] = [z.times(re, builder.fneg(im)) for z, (re, im) in zip(y[1:], s, strict=True)]
                else:
                    y = _sums([x[0], *(z.times(*w) for z, w in zip(x[1:], s, strict=True))], 1)
                for z, pair in zip(y, places, strict=True):
                    for value, to in zip(z[1:], pair, strict=True):
                        builder.store(value, to, align=size)
            return context.get_dummy_value()

        whole = types.int64
        return types.void(re, im, whole, whole, roots, whole), code

    return run


_split_8, _split_5, _split_4, _split_3, _split_2 = (_factors(radix, False) for radix in RADICES)
_merge_8, _merge_5, _merge_4, _merge_3, _merge_2 = (_factors(radix, True) for radix in RADICES)
