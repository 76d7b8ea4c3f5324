"""Lines inside compiled loops: as many numbers as the widest registers hold, 64 bytes in float32 or float64, as one
value.

LLVM vectorises a plain loop over local arrays (`zoo.ops.cpu.jit`), but what one such loop leaves for the next passes
through memory, and each has to begin. A loop over lines keeps what it needs in registers, between steps as well:

    n = lanes(w)
    for c in range(0, len(w), n):
        y = load(w, c) * load(x, c)
        put(y * sigmoids(y), to, c)

Lines come from arrays in float32, in float64, or in bfloat16 (`zoo.ops.cpu.bfloat16`), which is widened. They are added,
subtracted, multiplied and divided, with each other and as fast as `loops.FAST` allows.
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
"""Of a line, here and in the cache."""
_FLAGS = tuple(sorted(FAST))


class Line(types.Type):
    """Of numbers in `dtype`, float32 or float64."""

    def __init__(self, dtype: Any) -> None:
        super().__init__(name=f"Line({dtype})")
        self.dtype, self.lanes = dtype, 8 * BYTES // dtype.bitwidth
        number = ir.FloatType() if dtype == types.float32 else ir.DoubleType()
        self.vector, self.words = ir.VectorType(number, self.lanes), ir.VectorType(WORD, self.lanes)
        self.suffix = f"v{self.lanes}f{dtype.bitwidth}"


@register_model(Line)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, line: Line) -> None:
        super().__init__(manager, line, line.vector)


def _of(array: Any) -> Line:
    """What is loaded from such an array."""
    return Line(types.float32 if array.dtype == types.uint16 else array.dtype)


def lanes(kind: Any) -> int:
    """Numbers of a line of arrays like `kind`."""
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
    """The line that begins at x[at]."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _read(Code(context, builder, signature, arguments), 0, arguments[1], signature.return_type)

    return _of(x)(x, types.int64), code


@intrinsic
def load_some(typing: Any, x: Any, at: Any, size: Any) -> Any:
    """The line that begins at x[at], of which only `size` numbers are there; the others are zeros."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit, (_, at, size), line = Code(context, builder, signature, arguments), arguments, signature.return_type
        whole = builder.icmp_signed(">=", size, ir.Constant(LONG, line.lanes))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                every, from_every = _read(emit, 0, at, line), builder.block
            with otherwise:
                kept = cgutils.alloca_once(builder, line.vector)
                builder.store(ir.Constant(line.vector, None), kept)
                numbers = builder.bitcast(kept, line.vector.element.as_pointer())
                with cgutils.for_range(builder, size) as loop:
                    bits = builder.load(_place(emit, 0, builder.add(at, loop.index)))
                    builder.store(_wide(builder, bits, line.vector.element, WORD), builder.gep(numbers, [loop.index]))
                some, from_some = builder.load(kept), builder.block
        result = builder.phi(line.vector)
        result.add_incoming(every, from_every)
        result.add_incoming(some, from_some)
        return result

    return _of(x)(x, types.int64, types.int64), code


@intrinsic
def put(typing: Any, line: Any, x: Any, at: Any) -> Any:
    """`line` to x[at] and behind it; to bfloat16 rounded to the nearest, ties to even."""
    if _of(x) != line:
        return None

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        line, _, at = arguments
        _write(Code(context, builder, signature, arguments), line, 1, at)
        return context.get_dummy_value()

    return types.void(line, x, types.int64), code


@intrinsic
def put_some(typing: Any, line: Any, x: Any, at: Any, size: Any) -> Any:
    """The first `size` numbers of `line`, or all, as by `put`."""
    if _of(x) != line:
        return None

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit, (line, _, at, size) = Code(context, builder, signature, arguments), arguments
        whole = builder.icmp_signed(">=", size, ir.Constant(LONG, signature.args[0].lanes))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                _write(emit, line, 1, at)
            with otherwise:
                narrow = _rounded(emit, line) if _half(signature.args[1]) else line
                kept = cgutils.alloca_once_value(builder, narrow)
                numbers = builder.bitcast(kept, narrow.type.element.as_pointer())
                with cgutils.for_range(builder, size) as loop:
                    number = builder.load(builder.gep(numbers, [loop.index]))
                    builder.store(number, _place(emit, 1, builder.add(at, loop.index)))
        return context.get_dummy_value()

    return types.void(line, x, types.int64, types.int64), code


@inlined
def fetch(x, at, size):  # type: ignore[no-untyped-def]
    """Have `size` numbers from x[at] on come near, of an array of any shape and whether it reaches so far or not.

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
def spread(typing: Any, x: Any) -> Any:
    """A line of the number x."""
    line = Line(x)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return Code(context, builder, signature, arguments).spread(arguments[0], line.vector)

    return line(x), code


@intrinsic
def total(typing: Any, line: Any) -> Any:
    """The sum of a line's numbers."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = ir.Constant(line.vector.element, 0.0)
        kind = ir.FunctionType(start.type, [start.type, line.vector])
        name = f"llvm.vector.reduce.fadd.{line.suffix}"
        return builder.call(
            cgutils.get_or_insert_function(builder.module, kind, name), [start, *arguments], fastmath=_FLAGS
        )

    return line.dtype(line), code


@intrinsic
def sigmoids(typing: Any, line: Any) -> Any:
    """1 / (1 + e^{−x}) of a line's numbers, as `loops.sigmoid`."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit, (x,) = Code(context, builder, signature, arguments), arguments
        one = _same(line, 1.0)
        if line.dtype == types.float64:
            falling = emit.call(f"exp.{line.suffix}", builder.fneg(x), returns=line.vector)
        else:
            falling = _exp2(emit, line, builder.fmul(x, _same(line, -1 / math.log(2)), flags=_FLAGS))
        return builder.fdiv(one, builder.fadd(one, falling, flags=_FLAGS), flags=_FLAGS)

    return line(line), code


def _exp2(emit: Code, line: Line, x: Any) -> Any:
    """2^x for |x| ≤ 126, and what is farther out as if it were there: see `loops.exp2`."""
    build = emit.build
    for name, end in (("minnum", 126.0), ("maxnum", -126.0)):
        x = emit.call(f"{name}.{line.suffix}", x, _same(line, end), returns=line.vector)
    n = emit.call(f"roundeven.{line.suffix}", x, returns=line.vector)
    r = build.fsub(x, n, flags=_FLAGS)
    p = _same(line, float(EXP2[0]))
    for coefficient in EXP2[1:]:
        p = build.fadd(build.fmul(p, r, flags=_FLAGS), _same(line, float(coefficient)), flags=_FLAGS)
    shifted = build.shl(build.fptosi(n, line.words), ir.Constant(line.words, [23] * line.lanes))
    return build.bitcast(build.add(build.bitcast(p, line.words), shifted), line.vector)


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
        return run if isinstance(x, Line) and x == y else None


_arithmetic("fadd", operator.add)
_arithmetic("fsub", operator.sub)
_arithmetic("fmul", operator.mul)
_arithmetic("fdiv", operator.truediv)


def _half(array: Any) -> bool:
    return bool(array.dtype == types.uint16)


def _same(line: Line, number: float) -> Any:
    return ir.Constant(line.vector, [number] * line.lanes)


def _place(emit: Code, i: int, at: Any, lanes: int | None = None) -> Any:
    """Of what begins at element `at` of array i: a number, or several."""
    array = emit.types[i]
    kind = SHORT if _half(array) else Line(array.dtype).vector.element
    return emit.build.bitcast(emit.address(i, at), (ir.VectorType(kind, lanes) if lanes else kind).as_pointer())


def _wide(build: Any, bits: Any, kind: Any, words: Any) -> Any:
    """Numbers of an array as those of a line: bfloat16 is the upper half of a float32."""
    if bits.type == kind:
        return bits
    shift = ir.Constant(words, [16] * words.count if isinstance(words, ir.VectorType) else 16)
    return build.bitcast(build.shl(build.zext(bits, words), shift), kind)


def _read(emit: Code, i: int, at: Any, line: Line) -> Any:
    bits = emit.build.load(_place(emit, i, at, line.lanes), align=emit.types[i].dtype.bitwidth // 8)
    return _wide(emit.build, bits, line.vector, line.words)


def _write(emit: Code, line: Any, i: int, at: Any) -> None:
    array = emit.types[i]
    numbers = _rounded(emit, line) if _half(array) else line
    emit.build.store(numbers, _place(emit, i, at, line.type.count), align=array.dtype.bitwidth // 8)


def _rounded(emit: Code, line: Any) -> Any:
    """A line of float32 in bfloat16: by an instruction if the CPU has it."""
    build, half = emit.build, ir.VectorType(SHORT, line.type.count)
    if forms.matmul_backend(torch.bfloat16):
        return build.call(ir.InlineAsm(ir.FunctionType(half, [line.type]), "vcvtneps2bf16 $1, $0", "=v,v"), [line])
    words = ir.VectorType(WORD, line.type.count)

    def every(number: int) -> Any:
        return ir.Constant(words, [number] * words.count)

    bits = build.bitcast(line, words)
    odd = build.and_(build.lshr(bits, every(16)), every(1))
    return build.trunc(build.lshr(build.add(bits, build.add(odd, every(0x7FFF))), every(16)), half)
