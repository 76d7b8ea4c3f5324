"""Matrix products inside compiled loops on the matrix tiles of a CPU (AMX), in bfloat16, summed in float32.

A tile holds 16 rows of 64 bytes; its instruction adds to 16×16 numbers in float32 the products of 16×32 and 32×16 ones
in bfloat16, the latter in pairs of rows (see `products`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from zoo.ops.cpu.intrinsics import BYTE, LONG, Code, intrinsic
from zoo.ops.cpu.jit import inlined

SIDE, STEP, LINE = 16, 32, 64
"""Rows of a tile, numbers in bfloat16 of a row, and its bytes."""


def _settings(name: str) -> Any:
    @intrinsic
    def run(typing: Any, settings: Any, at: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = Code(context, builder, signature, arguments)
            emit.call(f"x86.{name}", emit.address(0, arguments[1]))
            return context.get_dummy_value()

        return types.void(settings, types.int64), code

    return run


_store, _load = _settings("sttilecfg"), _settings("ldtilecfg")


def _block(down: int, across: int) -> Any:
    """As `product` of `down` × `across` tiles of c: tiles 0 … 3 hold it, 4 and 5 rows of a, 6 and 7 columns of b."""

    @intrinsic
    def run(typing: Any, a: Any, at_a: Any, b: Any, at_b: Any, c: Any, at_c: Any, n: Any, k: Any, more: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            emit = Code(context, builder, signature, arguments)
            n, k, more = arguments[6:]
            side, step = (ir.Constant(LONG, x) for x in (SIDE, STEP))
            tiles = [ir.Constant(BYTE, tile) for tile in range(8)]
            corner, c_step = emit.address(4, arguments[5]), builder.mul(n, ir.Constant(LONG, 4))
            sums = []
            for i in range(down):
                row = emit.offset_rows(corner, ir.Constant(LONG, SIDE * i), c_step)
                for j in range(across):
                    sums.append((tiles[2 * i + j], builder.gep(row, [ir.Constant(LONG, LINE * j)])))
            with builder.if_else(more) as (then, otherwise):
                with then:
                    for tile, place in sums:
                        emit.call("x86.tileloadd64", tile, place, c_step)
                with otherwise:
                    for tile, _ in sums:
                        emit.call("x86.tilezero", tile)
            a_step = builder.mul(k, ir.Constant(LONG, 2))
            first, top = emit.address(0, arguments[1]), emit.address(2, arguments[3])
            with cgutils.for_range(builder, builder.sdiv(k, step)) as loop:
                left = builder.gep(first, [builder.mul(loop.index, ir.Constant(LONG, LINE))])
                right = emit.offset_rows(top, builder.mul(loop.index, side), c_step)
                for i in range(down):
                    place = emit.offset_rows(left, ir.Constant(LONG, SIDE * i), a_step)
                    emit.call("x86.tileloadd64", tiles[4 + i], place, a_step)
                for j in range(across):
                    place = builder.gep(right, [ir.Constant(LONG, LINE * j)])
                    emit.call("x86.tileloadd64", tiles[6 + j], place, c_step)
                for i in range(down):
                    for j in range(across):
                        emit.call("x86.tdpbf16ps", tiles[2 * i + j], tiles[4 + i], tiles[6 + j])
            for tile, place in sums:
                emit.call("x86.tilestored64", tile, place, c_step)
            return context.get_dummy_value()

        whole = types.int64
        return types.void(a, whole, b, whole, c, whole, whole, whole, types.boolean), code

    return run


_block_2_2, _block_2_1, _block_1_2, _block_1_1 = _block(2, 2), _block(2, 1), _block(1, 2), _block(1, 1)


@inlined
def enter_tiles():  # type: ignore[no-untyped-def]
    """Set up this thread's tiles as whole ones; what was set up before."""
    settings = np.zeros(2 * LINE, np.uint8)
    _store(settings, 0)
    setup = settings[LINE:]
    setup[0] = 1
    for tile in range(8):
        setup[16 + 2 * tile], setup[48 + tile] = LINE, SIDE
    _load(settings, LINE)
    return settings


@inlined
def leave_tiles(before):  # type: ignore[no-untyped-def]
    """Set them up as they were."""
    _load(before, 0)


def multiply(a: Any, b: Any, c: Any, m: int, n: int, k: int, more: bool) -> Any:
    """As `products.product`."""
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
