"""Matrix products inside compiled loops: in bfloat16 on the matrix tiles of a CPU (AMX), summed in float32.

A tile holds 16 rows of 64 bytes; its instruction adds to 16×16 numbers in float32 the products of 16×32 and 32×16 ones
in bfloat16. What stands on the right comes in pairs of rows, so that two numbers to be summed lie side by side:

    left    X (m, k) row by row
    right   X (k, n) as (k/2, n, 2): rows 2i and 2i + 1 woven into one

`weave` makes a right form of a left one. Read in words of two numbers, the left form of X transposed is the right form
of Xᵀ, and the other way round: `turn` and `turn_back`. All matrices are flat arrays, their sides multiples of `SIDE`,
and of `STEP` where they are summed over. Of float32 and float64 both forms are the matrix itself, and products are
plain loops.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic
from numba.extending import overload

from zoo.ops.loops import FAST, inlined

binding.initialize_native_asmparser()  # for `_round_line`

SIDE = 16
STEP = 32
_LINE = 64
"""Bytes of a row of a tile, and of a line of the cache: rows that lie across two lines take twice as long."""

intrinsic: Any = _intrinsic  # what loops call lacks the argument that is about types
_BYTE, _SHORT, _WORD, _LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))


def padded(size: int) -> int:
    """A multiple of `STEP`."""
    return -(-size // STEP) * STEP


@inlined
def room(size, kind):  # type: ignore[no-untyped-def]
    """Zeros in the dtype of `kind`, from the start of a line of the cache."""
    x = np.zeros(size + _LINE // kind.itemsize, kind.dtype)
    skip = (-np.int64(x.ctypes.data)) % _LINE // kind.itemsize
    return x[skip : skip + size]


def narrow(x: Any, y: Any) -> None:
    """y, in the dtype of products, of x; as many numbers as a multiple of `SIDE`."""
    raise NotImplementedError("for loops only")


def enter(kind: Any) -> Any:
    """Set up this thread's tiles for products of arrays like `kind`; what was set up before, for `leave`."""
    raise NotImplementedError("for loops only")


def leave(before: Any, kind: Any) -> None:
    """Set the tiles up as they were."""
    raise NotImplementedError("for loops only")


def product(a: Any, b: Any, c: Any, m: int, n: int, k: int, more: bool) -> None:
    """c (m, n) ← a (m, k) b (k, n), on top of c if `more`; a left and b right."""
    raise NotImplementedError("for loops only")


def weave(x: Any, y: Any, m: int, n: int) -> None:
    """The right form y of the left form x (m, n)."""
    raise NotImplementedError("for loops only")


def turn(x: Any, y: Any, m: int, n: int) -> None:
    """The right form y of Xᵀ, of the left form x (m, n) of X."""
    raise NotImplementedError("for loops only")


def turn_back(x: Any, y: Any, m: int, n: int) -> None:
    """The left form y of Xᵀ, of the right form x (m, n) of X."""
    raise NotImplementedError("for loops only")


def _narrow(x: Any, y: Any) -> Any:
    for i in range(0, len(y), SIDE):
        _round_line(x, i, y, i)


def _narrow_plain(x: Any, y: Any) -> Any:
    for i in range(len(y)):
        y[i] = x[i]


def _enter(kind: Any) -> Any:
    settings = np.zeros(2 * _LINE, np.uint8)
    _store(settings, 0)
    setup = settings[_LINE:]
    setup[0] = 1
    for tile in range(8):
        setup[16 + 2 * tile], setup[48 + tile] = _LINE, SIDE
    _load(settings, _LINE)
    return settings


def _enter_plain(kind: Any) -> Any:
    return np.zeros(0, np.uint8)


def _leave(before: Any, kind: Any) -> Any:
    _load(before, 0)


def _leave_plain(before: Any, kind: Any) -> Any:
    pass


def _product(a: Any, b: Any, c: Any, m: int, n: int, k: int, more: bool) -> Any:
    for i in range(0, m, 2 * SIDE):
        for j in range(0, n, 2 * SIDE):
            if i + SIDE < m:
                if j + SIDE < n:
                    _block_2_2(a, i * k, b, 2 * j, c, i * n + j, n, k, more)
                else:
                    _block_2_1(a, i * k, b, 2 * j, c, i * n + j, n, k, more)
            elif j + SIDE < n:
                _block_1_2(a, i * k, b, 2 * j, c, i * n + j, n, k, more)
            else:
                _block_1_1(a, i * k, b, 2 * j, c, i * n + j, n, k, more)


def _product_plain(a: Any, b: Any, c: Any, m: int, n: int, k: int, more: bool) -> Any:
    for i in range(m):
        row = c[i * n : i * n + n]
        if not more:
            row[:] = 0
        for p in range(k):
            weight, line = a[i * k + p], b[p * n : p * n + n]
            for j in range(n):
                row[j] += weight * line[j]


def _weave(x: Any, y: Any, m: int, n: int) -> Any:
    words = y.view(np.uint32)
    for i in range(m // 2):
        even, odd = x[2 * i * n : 2 * i * n + n], x[2 * i * n + n : 2 * i * n + 2 * n]
        out = words[i * n : i * n + n]
        for j in range(n):
            out[j] = np.uint32(np.uint32(even[j]) | np.uint32(np.uint32(odd[j]) << np.uint32(16)))


def _weave_plain(x: Any, y: Any, m: int, n: int) -> Any:
    for i in range(m * n):
        y[i] = x[i]


def _turn(x: Any, y: Any, m: int, n: int) -> Any:
    words = n // 2
    for i in range(0, m, SIDE):
        for j in range(0, words, SIDE):
            _turn_tile(x, 2 * (i * words + j), words, y, 2 * (j * m + i), m)


def _turn_back(x: Any, y: Any, m: int, n: int) -> Any:
    pairs = m // 2
    for i in range(0, pairs, SIDE):
        for j in range(0, n, SIDE):
            _turn_tile(x, 2 * (i * n + j), n, y, 2 * (j * pairs + i), pairs)


def _turn_plain(x: Any, y: Any, m: int, n: int) -> Any:
    for i in range(m):
        for j in range(n):
            y[j * m + i] = x[i * n + j]


def _half(x: Any) -> bool:
    return bool(x.dtype == types.uint16)


@overload(narrow)
def _narrowing(x: Any, y: Any) -> Any:
    return _narrow if _half(y) else _narrow_plain


@overload(enter)
def _entering(kind: Any) -> Any:
    return _enter if _half(kind) else _enter_plain


@overload(leave)
def _leaving(before: Any, kind: Any) -> Any:
    return _leave if _half(kind) else _leave_plain


@overload(product, jit_options={"fastmath": FAST})
def _multiplying(a: Any, b: Any, c: Any, m: int, n: int, k: int, more: bool) -> Any:
    return _product if _half(a) else _product_plain


@overload(weave)
def _weaving(x: Any, y: Any, m: int, n: int) -> Any:
    return _weave if _half(x) else _weave_plain


@overload(turn)
def _turning(x: Any, y: Any, m: int, n: int) -> Any:
    return _turn if _half(x) else _turn_plain


@overload(turn_back)
def _turning_back(x: Any, y: Any, m: int, n: int) -> Any:
    return _turn_back if _half(x) else _turn_plain


class _Code:
    """What an intrinsic emits."""

    def __init__(self, context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> None:
        self.context, self.build, self.arguments = context, builder, dict(enumerate(arguments))
        self.types = signature.args

    def address(self, i: int, offset: Any) -> Any:
        """Of element `offset` of array i."""
        array = self.context.make_array(self.types[i])(self.context, self.build, self.arguments[i])
        return self.build.bitcast(self.build.gep(array.data, [offset]), _BYTE.as_pointer())

    def further(self, address: Any, rows: Any, step: Any) -> Any:
        """`rows` rows of `step` bytes behind an address."""
        return self.build.gep(address, [self.build.mul(rows, step)])

    def call(self, name: str, *arguments: Any) -> None:
        kind = ir.FunctionType(ir.VoidType(), [x.type for x in arguments])
        self.build.call(cgutils.get_or_insert_function(self.build.module, kind, f"llvm.x86.{name}"), arguments)


def _settings(name: str) -> Any:
    @intrinsic
    def run(typing: Any, settings: Any, at: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Code(context, builder, signature, arguments)
            emit.call(name, emit.address(0, arguments[1]))
            return context.get_dummy_value()

        return types.void(settings, types.int64), code

    return run


_store, _load = _settings("sttilecfg"), _settings("ldtilecfg")


def _block(down: int, across: int) -> Any:
    """As `product` of `down` × `across` tiles of c: tiles 0 … 3 hold it, 4 and 5 rows of a, 6 and 7 columns of b."""

    @intrinsic
    def run(typing: Any, a: Any, at_a: Any, b: Any, at_b: Any, c: Any, at_c: Any, n: Any, k: Any, more: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = _Code(context, builder, signature, arguments)
            n, k, more = arguments[6:]
            side, step = (ir.Constant(_LONG, x) for x in (SIDE, STEP))
            tiles = [ir.Constant(_BYTE, tile) for tile in range(8)]
            corner, c_step = emit.address(4, arguments[5]), builder.mul(n, ir.Constant(_LONG, 4))
            sums = []
            for i in range(down):
                row = emit.further(corner, ir.Constant(_LONG, SIDE * i), c_step)
                for j in range(across):
                    sums.append((tiles[2 * i + j], builder.gep(row, [ir.Constant(_LONG, _LINE * j)])))
            with builder.if_else(more) as (then, otherwise):
                with then:
                    for tile, place in sums:
                        emit.call("tileloadd64", tile, place, c_step)
                with otherwise:
                    for tile, _ in sums:
                        emit.call("tilezero", tile)
            a_step = builder.mul(k, ir.Constant(_LONG, 2))
            first, top = emit.address(0, arguments[1]), emit.address(2, arguments[3])
            with cgutils.for_range(builder, builder.sdiv(k, step)) as loop:
                left = builder.gep(first, [builder.mul(loop.index, ir.Constant(_LONG, _LINE))])
                right = emit.further(top, builder.mul(loop.index, side), c_step)
                for i in range(down):
                    place = emit.further(left, ir.Constant(_LONG, SIDE * i), a_step)
                    emit.call("tileloadd64", tiles[4 + i], place, a_step)
                for j in range(across):
                    place = builder.gep(right, [ir.Constant(_LONG, _LINE * j)])
                    emit.call("tileloadd64", tiles[6 + j], place, c_step)
                for i in range(down):
                    for j in range(across):
                        emit.call("tdpbf16ps", tiles[2 * i + j], tiles[4 + i], tiles[6 + j])
            for tile, place in sums:
                emit.call("tilestored64", tile, place, c_step)
            return context.get_dummy_value()

        whole = types.int64
        return types.void(a, whole, b, whole, c, whole, whole, whole, types.boolean), code

    return run


_block_2_2, _block_2_1, _block_1_2, _block_1_1 = _block(2, 2), _block(2, 1), _block(1, 2), _block(1, 1)


@intrinsic
def _turn_tile(typing: Any, x: Any, at_x: Any, x_step: Any, y: Any, at_y: Any, y_step: Any) -> Any:
    """16×16 words of x, rows `x_step` words apart, transposed into y.

    Each of four rounds weaves row i with row i + 8, which moves one bit of a row's number into that of the column.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = _Code(context, builder, signature, arguments)
        line = ir.VectorType(_WORD, SIDE)

        def places(array: int, at: Any, step: Any) -> list[Any]:
            first, step = emit.address(array, at), builder.mul(step, ir.Constant(_LONG, 4))
            rows = [emit.further(first, ir.Constant(_LONG, i), step) for i in range(SIDE)]
            return [builder.bitcast(row, line.as_pointer()) for row in rows]

        _, at_x, x_step, _, at_y, y_step = arguments
        rows = [builder.load(place, align=4) for place in places(0, at_x, x_step)]
        halves = [
            ir.Constant(line, [half * SIDE // 2 + i // 2 + i % 2 * SIDE for i in range(SIDE)]) for half in range(2)
        ]
        for _ in range(SIDE.bit_length() - 1):
            pairs = [(rows[i], rows[i + SIDE // 2]) for i in range(SIDE // 2)]
            rows = [builder.shuffle_vector(*pair, half) for pair in pairs for half in halves]
        for row, place in zip(rows, places(3, at_y, y_step), strict=True):
            builder.store(row, place, align=4)
        return context.get_dummy_value()

    whole = types.int64
    return types.void(x, whole, whole, y, whole, whole), code


@intrinsic
def _round_line(typing: Any, x: Any, at_x: Any, y: Any, at_y: Any) -> Any:
    """16 numbers of x in bfloat16, by the instruction that CPUs with tiles have; to the nearest, ties to even."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit, wide, half = (
            _Code(context, builder, signature, arguments),
            *(ir.VectorType(kind, SIDE) for kind in (ir.FloatType(), _SHORT)),
        )
        rounds = ir.InlineAsm(ir.FunctionType(half, [wide]), "vcvtneps2bf16 $1, $0", "=v,v")
        line = builder.load(builder.bitcast(emit.address(0, arguments[1]), wide.as_pointer()), align=4)
        place = builder.bitcast(emit.address(2, arguments[3]), half.as_pointer())
        builder.store(builder.call(rounds, [line]), place, align=2)
        return context.get_dummy_value()

    return types.void(x, types.int64, y, types.int64), code
