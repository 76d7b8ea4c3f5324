"""Matrix products inside compiled loops in registers for vectors, and squares transposed in them.

A block of c (m, n) stays in registers while a (m, k) and b (k, n) pass by: a number of a, times a few lines of a row of
b. In float32 that is a fused multiply-add; in bfloat16 an instruction (AVX512-BF16) that adds two products at once, of
numbers which lie side by side: pairs of rows of b are interleaved (see `zoo.ops.cpu.matmul`).
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from zoo.ops.cpu.intrinsics import WORD, Code, block_product, emits, intrinsic, long

LINE = 16
"""Numbers in float32 of a line of the cache, and of the widest registers."""
_NUMBER, _VECTOR = ir.FloatType(), ir.VectorType(ir.FloatType(), LINE)


def _block(down: int, across: int) -> Any:
    """As `multiply` for `down` rows and `across` lines of c; a and b in float32 or bits of bfloat16."""
    rows, lines = range(down), range(across)

    def emit(code: Code, a: Any, at_a: Any, b: Any, at_b: Any, c: Any, at_c: Any, n: Any, k: Any, more: Any) -> None:
        build, pairs = code.build, code.types[0].dtype == types.uint16
        row_bytes, a_bytes = build.mul(n, long(4)), build.mul(k, long(2 if pairs else 4))

        def line(row: Any, j: int) -> Any:
            return build.bitcast(build.gep(row, [long(4 * LINE * j)]), _VECTOR.as_pointer())

        corner = code.address(4, at_c)
        sums = [[cgutils.alloca_once(build, _VECTOR) for _ in lines] for _ in rows]
        places = [[line(code.offset_rows(corner, long(i), row_bytes), j) for j in lines] for i in rows]
        every = [(sums[i][j], places[i][j]) for i in rows for j in lines]
        with build.if_else(more) as (then, otherwise):
            with then:
                for total, place in every:
                    build.store(build.load(place, align=4), total)
            with otherwise:
                for total, _ in every:
                    build.store(ir.Constant(_VECTOR, None), total)
        first, top = code.address(0, at_a), code.address(2, at_b)
        with cgutils.for_range(build, build.sdiv(k, long(2)) if pairs else k) as loop:
            left = build.gep(first, [build.mul(loop.index, long(4))])
            right = code.offset_rows(top, loop.index, row_bytes)
            factors = [build.load(line(right, j), align=4) for j in lines]
            for i in rows:
                place = build.bitcast(code.offset_rows(left, long(i), a_bytes), _NUMBER.as_pointer())
                factor = code.broadcast(build.load(place, align=4), _VECTOR)
                for j in lines:
                    total = build.load(sums[i][j])
                    build.store(_multiply_add(code, pairs, factor, factors[j], total), sums[i][j])
        for total, place in every:
            build.store(build.load(total), place, align=4)

    return block_product(emit)


def _multiply_add(code: Code, pairs: bool, x: Any, y: Any, total: Any) -> Any:
    if not pairs:
        return code.call(f"fma.v{LINE}f32", x, y, total, returns=_VECTOR)
    add = ir.InlineAsm(ir.FunctionType(_VECTOR, [_VECTOR] * 3), "vdpbf16ps $3, $2, $0", "=v,0,v,v")
    return code.build.call(add, [total, x, y])


_block_4_4, _block_4_2, _block_8_1 = _block(4, 4), _block(4, 2), _block(8, 1)


def multiply(a, b, c, m, n, k, more):  # type: ignore[no-untyped-def]
    """As `zoo.ops.cpu.matmul.product`."""
    words = 1 if a.itemsize == 4 else 2  # of b, for a number of c
    fours, pairs = n // (4 * LINE) * (4 * LINE), n // (2 * LINE) * (2 * LINE)
    for j in range(0, fours, 4 * LINE):
        for i in range(0, m, 4):
            _block_4_4(a, i * k, b, words * j, c, i * n + j, n, k, more)
    for j in range(fours, pairs, 2 * LINE):
        for i in range(0, m, 4):
            _block_4_2(a, i * k, b, words * j, c, i * n + j, n, k, more)
    for j in range(pairs, n, LINE):
        for i in range(0, m, 8):
            _block_8_1(a, i * k, b, words * j, c, i * n + j, n, k, more)


@intrinsic
def transpose_square(typing: Any, x: Any, at_x: Any, x_step: Any, y: Any, at_y: Any, y_step: Any) -> Any:
    """Transpose 16×16 words of x, rows `x_step` words apart, into y.

    Each of four rounds interleaves row i with row i + 8, which moves one bit of a row's number into that of the column.
    """
    whole, line = types.int64, ir.VectorType(WORD, LINE)

    def emit(code: Code, x: Any, at_x: Any, x_step: Any, y: Any, at_y: Any, y_step: Any) -> None:
        build = code.build

        def places(array: int, at: Any, step: Any) -> list[Any]:
            first, step = code.address(array, at), build.mul(step, long(4))
            rows = [code.offset_rows(first, long(i), step) for i in range(LINE)]
            return [build.bitcast(row, line.as_pointer()) for row in rows]

        rows = [build.load(place, align=4) for place in places(0, at_x, x_step)]
        halves = [
            ir.Constant(line, [half * LINE // 2 + i // 2 + i % 2 * LINE for i in range(LINE)]) for half in range(2)
        ]
        for _ in range(LINE.bit_length() - 1):
            pairs = [(rows[i], rows[i + LINE // 2]) for i in range(LINE // 2)]
            rows = [build.shuffle_vector(*pair, half) for pair in pairs for half in halves]
        for row, place in zip(rows, places(3, at_y, y_step), strict=True):
            build.store(row, place, align=4)

    return types.void(x, whole, whole, y, whole, whole), emits(emit)
