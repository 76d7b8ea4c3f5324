"""Matrix products inside compiled loops in registers for vectors, and squares turned in them.

A block of c (m, n) stays in registers while a (m, k) and b (k, n) pass by: a number of a, times a few lines of a row of
b. In float32 that is a fused multiply-add; in bfloat16 an instruction (AVX512-BF16) that adds two products at once, of
numbers which lie side by side: pairs of rows of b are woven into one (see `products`).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from zoo.ops.cpu.intrinsics import LONG, WORD, Code, intrinsic

LINE = 16
"""Numbers in float32 of a line of the cache, and of the widest registers."""
_NUMBER, _VECTOR = ir.FloatType(), ir.VectorType(ir.FloatType(), LINE)


def _block(down: int, across: int) -> Any:
    """As `multiply` for `down` rows and `across` lines of c; a and b in float32 or bits of bfloat16."""

    @intrinsic
    def run(typing: Any, a: Any, at_a: Any, b: Any, at_b: Any, c: Any, at_c: Any, n: Any, k: Any, more: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = Code(context, builder, signature, arguments)
            n, k, more = arguments[6:]
            rows, lines = range(down), range(across)
            pairs = signature.args[0].dtype == types.uint16
            sums = [[cgutils.alloca_once(builder, _VECTOR) for _ in lines] for _ in rows]
            row_bytes = builder.mul(n, ir.Constant(LONG, 4))

            def line(row: Any, j: int) -> Any:
                place = builder.gep(row, [ir.Constant(LONG, 4 * LINE * j)])
                return builder.bitcast(place, _VECTOR.as_pointer())

            corner = emit.address(4, arguments[5])
            places = [[line(emit.offset_rows(corner, ir.Constant(LONG, i), row_bytes), j) for j in lines] for i in rows]
            every = [(sums[i][j], places[i][j]) for i in rows for j in lines]
            with builder.if_else(more) as (then, otherwise):
                with then:
                    for total, place in every:
                        builder.store(builder.load(place, align=4), total)
                with otherwise:
                    for total, _ in every:
                        builder.store(ir.Constant(_VECTOR, None), total)
            first, top = emit.address(0, arguments[1]), emit.address(2, arguments[3])
            a_bytes = builder.mul(k, ir.Constant(LONG, 2 if pairs else 4))
            steps = builder.sdiv(k, ir.Constant(LONG, 2)) if pairs else k
            with cgutils.for_range(builder, steps) as loop:
                left = builder.gep(first, [builder.mul(loop.index, ir.Constant(LONG, 4))])
                right = emit.offset_rows(top, loop.index, row_bytes)
                factors = [builder.load(line(right, j), align=4) for j in lines]
                for i in rows:
                    place = emit.offset_rows(left, ir.Constant(LONG, i), a_bytes)
                    factor = emit.broadcast(
                        builder.load(builder.bitcast(place, _NUMBER.as_pointer()), align=4), _VECTOR
                    )
                    for j in lines:
                        total = builder.load(sums[i][j])
                        more_ = _multiply_add(emit, pairs, factor, factors[j], total)
                        builder.store(more_, sums[i][j])
            for total, place in every:
                builder.store(builder.load(total), place, align=4)
            return context.get_dummy_value()

        whole = types.int64
        return types.void(a, whole, b, whole, c, whole, whole, whole, types.boolean), code

    return run


def _multiply_add(emit: Code, pairs: bool, x: Any, y: Any, total: Any) -> Any:
    if not pairs:
        return emit.call(f"fma.v{LINE}f32", x, y, total, returns=_VECTOR)
    add = ir.InlineAsm(ir.FunctionType(_VECTOR, [_VECTOR] * 3), "vdpbf16ps $3, $2, $0", "=v,0,v,v")
    return emit.build.call(add, [total, x, y])


_block_4_4, _block_4_2, _block_8_1 = _block(4, 4), _block(4, 2), _block(8, 1)


def multiply(a: Any, b: Any, c: Any, m: int, n: int, k: int, more: bool) -> Any:
    """As `products.product`."""
    words = 1 if a.itemsize == 4 else 2  # of b, for a number of c
    j = 0
    while j + 4 * LINE <= n:
        for i in range(0, m, 4):
            _block_4_4(a, i * k, b, words * j, c, i * n + j, n, k, more)
        j += 4 * LINE
    while j + 2 * LINE <= n:
        for i in range(0, m, 4):
            _block_4_2(a, i * k, b, words * j, c, i * n + j, n, k, more)
        j += 2 * LINE
    while j < n:
        for i in range(0, m, 8):
            _block_8_1(a, i * k, b, words * j, c, i * n + j, n, k, more)
        j += LINE


@intrinsic
def transpose_square(typing: Any, x: Any, at_x: Any, x_step: Any, y: Any, at_y: Any, y_step: Any) -> Any:
    """16×16 words of x, rows `x_step` words apart, transposed into y.

    Each of four rounds weaves row i with row i + 8, which moves one bit of a row's number into that of the column.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit = Code(context, builder, signature, arguments)
        line = ir.VectorType(WORD, LINE)

        def places(array: int, at: Any, step: Any) -> list[Any]:
            first, step = emit.address(array, at), builder.mul(step, ir.Constant(LONG, 4))
            rows = [emit.offset_rows(first, ir.Constant(LONG, i), step) for i in range(LINE)]
            return [builder.bitcast(row, line.as_pointer()) for row in rows]

        _, at_x, x_step, _, at_y, y_step = arguments
        rows = [builder.load(place, align=4) for place in places(0, at_x, x_step)]
        halves = [
            ir.Constant(line, [half * LINE // 2 + i // 2 + i % 2 * LINE for i in range(LINE)]) for half in range(2)
        ]
        for _ in range(LINE.bit_length() - 1):
            pairs = [(rows[i], rows[i + LINE // 2]) for i in range(LINE // 2)]
            rows = [builder.shuffle_vector(*pair, half) for pair in pairs for half in halves]
        for row, place in zip(rows, places(3, at_y, y_step), strict=True):
            builder.store(row, place, align=4)
        return context.get_dummy_value()

    whole = types.int64
    return types.void(x, whole, whole, y, whole, whole), code
