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

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from llvmlite import ir
from numba import types
from numba.extending import models, overload, register_model

from zoo.ops import forms
from zoo.ops.cpu.intrinsics import LONG, SHORT, WORD, Code, by_type, emits, intrinsic
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


@by_type
def lanes(kind: Any) -> Any:
    """How many numbers a vector of arrays like `kind` holds."""
    return (lambda kind: 8) if kind.dtype == types.float64 else lambda kind: 16


@intrinsic
def load(typing: Any, x: Any, at: Any) -> Any:
    """The vector that begins at x[at]."""
    return _of(x)(x, types.int64), _emits_load(x)


@intrinsic
def load_partial(typing: Any, x: Any, at: Any, size: Any) -> Any:
    """The vector that begins at x[at], of which only `size` numbers are there; the others are zeros."""
    return _of(x)(x, types.int64, types.int64), _emits_load(x)


def _emits_load(kind: Any) -> Any:
    vec = _of(kind)
    numbers, name, align = _stored(kind)

    def emit(code: Code, x: Any, at: Any, size: Any = None) -> Any:
        given = code.address(0, at), align, _first(code, vec, size), ir.Constant(numbers, None)
        return _widened(code, code.call(f"masked.load.{name}.p0", *given, returns=numbers), vec)

    return emits(emit)


@intrinsic
def store(typing: Any, vec: Any, x: Any, at: Any) -> Any:
    """Write a vector to x from `at` on; to bfloat16 rounded to the nearest, ties to even."""
    return (types.void(vec, x, types.int64), _emits_store(x)) if _of(x) == vec else None


@intrinsic
def store_partial(typing: Any, vec: Any, x: Any, at: Any, size: Any) -> Any:
    """Write the first `size` numbers of a vector, or all, as `store`."""
    return (types.void(vec, x, types.int64, types.int64), _emits_store(x)) if _of(x) == vec else None


def _emits_store(kind: Any) -> Any:
    vec = _of(kind)
    numbers, name, align = _stored(kind)

    def emit(code: Code, x: Any, to: Any, at: Any, size: Any = None) -> None:
        x = x if numbers == vec.vector else _rounded(code.build, x)
        code.call(f"masked.store.{name}.p0", x, code.address(1, at), align, _first(code, vec, size))

    return emits(emit)


@inlined
def prefetch(x, at, size):  # type: ignore[no-untyped-def]
    """Fetch `size` numbers from x[at] on into the cache; the array may have any shape, and be shorter or empty.

    CPUs guess what comes next where rows follow each other; what stands far apart, or was written by another thread,
    would be waited for.
    """
    for c in range(0, size if len(x) > 0 else 0, BYTES // x.itemsize):
        _prefetch(x, at + c)


@intrinsic
def _prefetch(typing: Any, x: Any, at: Any) -> Any:
    flags = [ir.Constant(WORD, flag) for flag in (0, 3, 1)]  # to be read, often, as data
    return types.void(x, types.int64), emits(lambda code, x, at: code.call("prefetch.p0", code.address(0, at), *flags))


@intrinsic
def broadcast(typing: Any, x: Any) -> Any:
    """A vector of which each number is x."""
    vec = Vec(x)
    return vec(x), emits(lambda code, x: code.broadcast(x, vec.vector))


@intrinsic
def sum_lanes(typing: Any, vec: Any) -> Any:
    """The sum of a vector's numbers."""

    def emit(code: Code, x: Any) -> Any:
        start = ir.Constant(vec.vector.element, 0.0)
        return code.call(f"vector.reduce.fadd.{vec.suffix}", start, x, returns=start.type, flags=_FLAGS)

    return vec.dtype(vec), emits(emit)


@intrinsic
def vec_sigmoid(typing: Any, vec: Any) -> Any:
    """1 / (1 + e^{−x}) of each number, as `zoo.ops.cpu.jit.sigmoid`."""

    def emit(code: Code, x: Any) -> Any:
        build, one = code.build, _same(vec, 1.0)
        if vec.dtype == types.float64:
            falling = code.call(f"exp.{vec.suffix}", build.fneg(x), returns=vec.vector)
        else:
            falling = _exp2(code, vec, build.fmul(x, _same(vec, -1 / math.log(2)), flags=_FLAGS))
        return build.fdiv(one, build.fadd(one, falling, flags=_FLAGS), flags=_FLAGS)

    return vec(vec), emits(emit)


def _exp2(code: Code, vec: Vec, x: Any) -> Any:
    """2^x as `zoo.ops.cpu.jit.exp2`."""
    build = code.build
    for beyond, end in ((">", 128.0), ("<", -127.0)):  # NaN is neither
        x = build.select(build.fcmp_ordered(beyond, x, _same(vec, end)), _same(vec, end), x)
    n = code.call(f"roundeven.{vec.suffix}", x, returns=vec.vector)
    r = build.fsub(x, n, flags=_FLAGS)
    p = _same(vec, float(EXP2[0]))
    for coefficient in EXP2[1:]:
        p = build.fadd(build.fmul(p, r, flags=_FLAGS), _same(vec, float(coefficient)), flags=_FLAGS)
    exponent = build.add(build.fptosi(n, vec.words), ir.Constant(vec.words, [127] * vec.lanes))
    power = build.bitcast(build.shl(exponent, ir.Constant(vec.words, [23] * vec.lanes)), vec.vector)
    return build.fmul(p, power, flags=_FLAGS)


def _arithmetic(name: str, operation: Callable[..., Any]) -> None:
    """Let vectors be combined by an operator of Python's."""

    @intrinsic
    def combine(typing: Any, x: Any, y: Any) -> Any:
        return x(x, y), emits(lambda code, x, y: getattr(code.build, name)(x, y, flags=_FLAGS))

    overload(operation)(lambda x, y: (lambda x, y: combine(x, y)) if isinstance(x, Vec) and x == y else None)


_arithmetic("fadd", operator.add)
_arithmetic("fsub", operator.sub)
_arithmetic("fmul", operator.mul)
_arithmetic("fdiv", operator.truediv)


def _same(vec: Vec, number: float) -> Any:
    return ir.Constant(vec.vector, [number] * vec.lanes)


def _stored(array: Any) -> tuple[Any, str, Any]:
    """The LLVM type of a vector's numbers as they lie in an array, what intrinsics call it, and its alignment."""
    vec, align = _of(array), ir.Constant(WORD, array.dtype.bitwidth // 8)
    half = array.dtype == types.uint16
    return (ir.VectorType(SHORT, vec.lanes), f"v{vec.lanes}i16", align) if half else (vec.vector, vec.suffix, align)


def _first(code: Code, vec: Vec, size: Any) -> Any:
    """A mask of the first `size` numbers of a vector, or of all where that is None."""
    if size is None:
        return ir.Constant(ir.VectorType(ir.IntType(1), vec.lanes), [1] * vec.lanes)
    every = ir.VectorType(LONG, vec.lanes)
    return code.build.icmp_signed("<", ir.Constant(every, list(range(vec.lanes))), code.broadcast(size, every))


def _widened(code: Code, numbers: Any, vec: Vec) -> Any:
    """Numbers of an array as a vector: bfloat16 is the upper half of a float32."""
    if numbers.type == vec.vector:
        return numbers
    shifted = code.build.shl(code.build.zext(numbers, vec.words), ir.Constant(vec.words, [16] * vec.lanes))
    return code.build.bitcast(shifted, vec.vector)


def _rounded(build: Any, vec: Any) -> Any:
    """A vector of float32 in bfloat16: by an instruction if the CPU has it."""
    half = ir.VectorType(SHORT, vec.type.count)
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
