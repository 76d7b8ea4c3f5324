"""Matrix products inside compiled loops on the matrix tiles of a CPU (AMX), in bfloat16, summed in float32.

A tile holds 16 rows of 64 bytes; its instruction adds to 16×16 numbers in float32 the products of 16×32 and 32×16 ones
in bfloat16, the latter in pairs of rows (see `zoo.ops.cpu.matmul`).
"""

from itertools import product
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from zoo.ops.cpu.intrinsics import BYTE, Code, block_product, emits, intrinsic, long

SIDE, STEP, LINE = 16, 32, 64
"""Rows of a tile, numbers in bfloat16 of a row, and its bytes."""


def _settings(name: str) -> Any:
    @intrinsic
    def run(typing: Any, settings: Any, at: Any) -> Any:
        return types.void(settings, types.int64), emits(
            lambda code, settings, at: code.call(f"x86.{name}", code.address(0, at))
        )

    return run


_store, _load = _settings("sttilecfg"), _settings("ldtilecfg")


def _block(down: int, across: int) -> Any:
    """As `multiply` for `down` × `across` tiles of c: tiles 0 … 3 hold it, 4 and 5 rows of a, 6 and 7 columns of b."""

    def emit(code: Code, a: Any, at_a: Any, b: Any, at_b: Any, c: Any, at_c: Any, n: Any, k: Any, more: Any) -> None:
        build = code.build
        tiles = [ir.Constant(BYTE, tile) for tile in range(8)]
        corner, c_step, a_step = code.address(4, at_c), build.mul(n, long(4)), build.mul(k, long(2))
        sums = []
        for i in range(down):
            row = code.offset_rows(corner, long(SIDE * i), c_step)
            sums += [(tiles[2 * i + j], build.gep(row, [long(LINE * j)])) for j in range(across)]
        with build.if_else(more) as (then, otherwise):
            with then:
                for tile, place in sums:
                    code.call("x86.tileloadd64", tile, place, c_step)
            with otherwise:
                for tile, _ in sums:
                    code.call("x86.tilezero", tile)
        first, top = code.address(0, at_a), code.address(2, at_b)
        with cgutils.for_range(build, build.sdiv(k, long(STEP))) as loop:
            left = build.gep(first, [build.mul(loop.index, long(LINE))])
            right = code.offset_rows(top, build.mul(loop.index, long(SIDE)), c_step)
            for i in range(down):
                code.call("x86.tileloadd64", tiles[4 + i], code.offset_rows(left, long(SIDE * i), a_step), a_step)
            for j in range(across):
                code.call("x86.tileloadd64", tiles[6 + j], build.gep(right, [long(LINE * j)]), c_step)
            for i, j in product(range(down), range(across)):
                code.call("x86.tdpbf16ps", tiles[2 * i + j], tiles[4 + i], tiles[6 + j])
        for tile, place in sums:
            code.call("x86.tilestored64", tile, place, c_step)

    return block_product(emit)


_block_2_2, _block_2_1, _block_1_2, _block_1_1 = _block(2, 2), _block(2, 1), _block(1, 2), _block(1, 1)


def enter(kind):  # type: ignore[no-untyped-def]
    """As `zoo.ops.cpu.matmul.enter`."""
    settings = np.zeros(2 * LINE, np.uint8)
    _store(settings, 0)
    setup = settings[LINE:]
    setup[0] = 1
    for tile in range(8):
        setup[16 + 2 * tile], setup[48 + tile] = LINE, SIDE
    _load(settings, LINE)
    return settings


def leave(before, kind):  # type: ignore[no-untyped-def]
    """As `zoo.ops.cpu.matmul.leave`."""
    _load(before, 0)


def multiply(a, b, c, m, n, k, more):  # type: ignore[no-untyped-def]
    """As `zoo.ops.cpu.matmul.product`."""
    for i in range(0, m, 2 * SIDE):
        for j in range(0, n, 2 * SIDE):
            tall, wide = i + SIDE < m, j + SIDE < n
            if tall and wide:
                _block_2_2(a, i * k, b, 2 * j, c, i * n + j, n, k, more)
            elif tall:
                _block_2_1(a, i * k, b, 2 * j, c, i * n + j, n, k, more)
            elif wide:
                _block_1_2(a, i * k, b, 2 * j, c, i * n + j, n, k, more)
            else:
                _block_1_1(a, i * k, b, 2 * j, c, i * n + j, n, k, more)
