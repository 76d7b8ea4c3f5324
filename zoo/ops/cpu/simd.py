"""Vectors inside compiled loops: as many numbers as the widest registers hold, 64 bytes in float32 or float64, as one
value.

LLVM vectorises a plain loop over local arrays (`zoo.ops.cpu.jit`), but what one such loop leaves for the next passes
through memory, and each has to begin. A loop over vectors keeps what it needs in registers, between steps as well:

    n = lanes(w)
    for c in range(0, len(w), n):
        y = load(w, c) * load(x, c)
        store(y * vec_sigmoid(y), to, c)

Vectors are loaded from arrays in float32, in float64, or in bfloat16 (`zoo.ops.cpu.bfloat16`), which is widened. They
are added, subtracted, multiplied and divided, with each other and under the flags of `zoo.ops.cpu.jit.FAST`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import models, overload, register_model

from zoo.ops import forms
from zoo.ops.cpu.intrinsics import LONG, SHORT, WORD, Code, intrinsic
from zoo.ops.cpu.jit import EXP2, FAST, inlined

BYTES = 64
"""The size of a vector, and of a line of the CPU's cache."""
_FLAGS = tuple(sorted(FAST))


class Vec(types.Type):
    """The numba type of a vector of `dtype`, float32 or float64."""

    def __init__(self, dtype: Any) -> None:
        super().__init__(name=f"Vec({dtype})")
        self.dtype, self.lanes = dtype, 8 * BYTES // dtype.bitwidth
        number = ir.FloatType() if dtype == types.float32 else ir.DoubleType()
        self.vector, self.words = ir.VectorType(number, self.lanes), ir.VectorType(WORD, self.lanes)
        self.suffix = f"v{self.lanes}f{dtype.bitwidth}"


@register_model(Vec)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, vec: Vec) -> None:
        super().__init__(manager, vec, vec.vector)


def _of(array: Any) -> Vec:
    """What is loaded from such an array."""
    return Vec(types.float32 if array.dtype == types.uint16 else array.dtype)


def lanes(kind: Any) -> int:
    """How many numbers a vector of arrays like `kind` holds."""
    raise NotImplementedError("for loops only")


@overload(lanes)
def _lanes_of(kind: Any) -> Any:
    return _sixteen if _of(kind).lanes == 16 else _eight


def _sixteen(kind: Any) -> Any:
    return 16


def _eight(kind: Any) -> Any:
    return 8


@intrinsic
def load(typing: Any, x: Any, at: Any) -> Any:
    """The vector that begins at x[at]."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _read(Code(context, builder, signature, arguments), 0, arguments[1], signature.return_type)

    return _of(x)(x, types.int64), code


@intrinsic
def load_partial(typing: Any, x: Any, at: Any, size: Any) -> Any:
    """The vector that begins at x[at], of which only `size` numbers are there; the others are zeros."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit, (_, at, size), vec = Code(context, builder, signature, arguments), arguments, signature.return_type
        whole = builder.icmp_signed(">=", size, ir.Constant(LONG, vec.lanes))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                every, from_every = _read(emit, 0, at, vec), builder.block
            with otherwise:
                kept = cgutils.alloca_once(builder, vec.vector)
                builder.store(ir.Constant(vec.vector, None), kept)
                numbers = builder.bitcast(kept, vec.vector.element.as_pointer())
                with cgutils.for_range(builder, size) as loop:
                    bits = builder.load(_place(emit, 0, builder.add(at, loop.index)))
                    builder.store(_wide(builder, bits, vec.vector.element, WORD), builder.gep(numbers, [loop.index]))
                some, from_some = builder.load(kept), builder.block
        result = builder.phi(vec.vector)
        result.add_incoming(every, from_every)
        result.add_incoming(some, from_some)
        return result

    return _of(x)(x, types.int64, types.int64), code


@intrinsic
def store(typing: Any, vec: Any, x: Any, at: Any) -> Any:
    """Write a vector to x from `at` on; to bfloat16 rounded to the nearest, ties to even."""
    if _of(x) != vec:
        return None

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vec, _, at = arguments
        _write(Code(context, builder, signature, arguments), vec, 1, at)
        return context.get_dummy_value()

    return types.void(vec, x, types.int64), code


@intrinsic
def store_partial(typing: Any, vec: Any, x: Any, at: Any, size: Any) -> Any:
    """Write the first `size` numbers of a vector, or all, as `store`."""
    if _of(x) != vec:
        return None

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit, (vec, _, at, size) = Code(context, builder, signature, arguments), arguments
        whole = builder.icmp_signed(">=", size, ir.Constant(LONG, signature.args[0].lanes))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                _write(emit, vec, 1, at)
            with otherwise:
                narrow = _rounded(emit, vec) if _half(signature.args[1]) else vec
                kept = cgutils.alloca_once_value(builder, narrow)
                numbers = builder.bitcast(kept, narrow.type.element.as_pointer())
                with cgutils.for_range(builder, size) as loop:
                    number = builder.load(builder.gep(numbers, [loop.index]))
                    builder.store(number, _place(emit, 1, builder.add(at, loop.index)))
        return context.get_dummy_value()

    return types.void(vec, x, types.int64, types.int64), code


@inlined
def prefetch(x, at, size):  # type: ignore[no-untyped-def]
    """Fetch `size` numbers from x[at] on into the cache; the array may have any shape, and be shorter.

    CPUs guess what comes next where rows follow each other; what stands far apart, or was written by another thread,
    would be waited for.
    """
    for c in range(0, size, BYTES // x.itemsize):
        _prefetch(x, at + c)


@intrinsic
def _prefetch(typing: Any, x: Any, at: Any) -> Any:

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Code(context, builder, signature, arguments)
        emit.call("prefetch.p0", emit.address(0, arguments[1]), *(ir.Constant(WORD, flag) for flag in (0, 3, 1)))
        return context.get_dummy_value()

    return types.void(x, types.int64), code


@intrinsic
def broadcast(typing: Any, x: Any) -> Any:
    """A vector of which each number is x."""
    vec = Vec(x)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return Code(context, builder, signature, arguments).broadcast(arguments[0], vec.vector)

    return vec(x), code


@intrinsic
def sum_lanes(typing: Any, vec: Any) -> Any:
    """The sum of a vector's numbers."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = ir.Constant(vec.vector.element, 0.0)
        kind = ir.FunctionType(start.type, [start.type, vec.vector])
        name = f"llvm.vector.reduce.fadd.{vec.suffix}"
        return builder.call(
            cgutils.get_or_insert_function(builder.module, kind, name), [start, *arguments], fastmath=_FLAGS
        )

    return vec.dtype(vec), code


@intrinsic
def vec_sigmoid(typing: Any, vec: Any) -> Any:
    """1 / (1 + e^{−x}) of each number, as `zoo.ops.cpu.jit.sigmoid`."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit, (x,) = Code(context, builder, signature, arguments), arguments
        one = _same(vec, 1.0)
        if vec.dtype == types.float64:
            falling = emit.call(f"exp.{vec.suffix}", builder.fneg(x), returns=vec.vector)
        else:
            falling = _exp2(emit, vec, builder.fmul(x, _same(vec, -1 / math.log(2)), flags=_FLAGS))
        return builder.fdiv(one, builder.fadd(one, falling, flags=_FLAGS), flags=_FLAGS)

    return vec(vec), code


def _exp2(emit: Code, vec: Vec, x: Any) -> Any:
    """2^x as `zoo.ops.cpu.jit.exp2`."""
    build = emit.build
    for beyond, end in ((">", 128.0), ("<", -127.0)):  # NaN is neither
        x = build.select(build.fcmp_ordered(beyond, x, _same(vec, end)), _same(vec, end), x)
    n = emit.call(f"roundeven.{vec.suffix}", x, returns=vec.vector)
    r = build.fsub(x, n, flags=_FLAGS)
    p = _same(vec, float(EXP2[0]))
    for coefficient in EXP2[1:]:
        p = build.fadd(build.fmul(p, r, flags=_FLAGS), _same(vec, float(coefficient)), flags=_FLAGS)
    exponent = build.add(build.fptosi(n, vec.words), ir.Constant(vec.words, [127] * vec.lanes))
    power = build.bitcast(build.shl(exponent, ir.Constant(vec.words, [23] * vec.lanes)), vec.vector)
    return build.fmul(p, power, flags=_FLAGS)


def _arithmetic(name: str, of: Callable[..., Any]) -> None:
    @intrinsic
    def combine(typing: Any, x: Any, y: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(*arguments, flags=_FLAGS)

        return x(x, y), code

    def run(x: Any, y: Any) -> Any:
        return combine(x, y)

    @overload(of)
    def _combining(x: Any, y: Any) -> Any:
        return run if isinstance(x, Vec) and x == y else None


_arithmetic("fadd", operator.add)
_arithmetic("fsub", operator.sub)
_arithmetic("fmul", operator.mul)
_arithmetic("fdiv", operator.truediv)


def _half(array: Any) -> bool:
    return bool(array.dtype == types.uint16)


def _same(vec: Vec, number: float) -> Any:
    return ir.Constant(vec.vector, [number] * vec.lanes)


def _place(emit: Code, i: int, at: Any, lanes: int | None = None) -> Any:
    """Of what begins at element `at` of array i: a number, or several."""
    array = emit.types[i]
    kind = SHORT if _half(array) else Vec(array.dtype).vector.element
    return emit.build.bitcast(emit.address(i, at), (ir.VectorType(kind, lanes) if lanes else kind).as_pointer())


def _wide(build: Any, bits: Any, kind: Any, words: Any) -> Any:
    """Numbers of an array as those of a vec: bfloat16 is the upper half of a float32."""
    if bits.type == kind:
        return bits
    shift = ir.Constant(words, [16] * words.count if isinstance(words, ir.VectorType) else 16)
    return build.bitcast(build.shl(build.zext(bits, words), shift), kind)


def _read(emit: Code, i: int, at: Any, vec: Vec) -> Any:
    bits = emit.build.load(_place(emit, i, at, vec.lanes), align=emit.types[i].dtype.bitwidth // 8)
    return _wide(emit.build, bits, vec.vector, vec.words)


def _write(emit: Code, vec: Any, i: int, at: Any) -> None:
    array = emit.types[i]
    numbers = _rounded(emit, vec) if _half(array) else vec
    emit.build.store(numbers, _place(emit, i, at, vec.type.count), align=array.dtype.bitwidth // 8)


def _rounded(emit: Code, vec: Any) -> Any:
    """A vector of float32 in bfloat16: by an instruction if the CPU has it."""
    build, half = emit.build, ir.VectorType(SHORT, vec.type.count)
    if forms.matmul_backend(torch.bfloat16):
        return build.call(ir.InlineAsm(ir.FunctionType(half, [vec.type]), "vcvtneps2bf16 $1, $0", "=v,v"), [vec])
    words = ir.VectorType(WORD, vec.type.count)

    def every(number: int) -> Any:
        return ir.Constant(words, [number] * words.count)

    bits = build.bitcast(vec, words)
    odd = build.and_(build.lshr(bits, every(16)), every(1))
    nearest = build.add(bits, build.add(odd, every(0x7FFF)))
    kept = build.select(build.fcmp_unordered("uno", vec, vec), every(0x7FC00000), nearest)
    return build.trunc(build.lshr(kept, every(16)), half)
