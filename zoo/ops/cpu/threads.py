"""Compiled loops on torch's own threads, which wait awake between two ops.

Threads of our own would have to be woken, which takes longer than many a loop, and would share a core with torch's. So
the work goes to the very same ones, through the function that every `#pragma omp parallel` compiles to. Each of them
enters machine code at once and never meets Python, whose lock it would have to wait for.
"""

from __future__ import annotations

import ctypes
import os
from array import array as Words
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.ops.cpu.bfloat16 import array

_Body: Any = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def run(kernel: Any, items: int, *arguments: Any, grain: int = 1) -> None:
    """Run `kernel(start, stop, *arguments)` on pieces of range(items), one per thread that torch may use, at once.

    Args:
        kernel: a function compiled by `zoo.ops.cpu.jit.loop`.
        items: what is divided; pieces are multiples of `grain` long except the last.
        arguments: tensors on the CPU (bfloat16 as in `zoo.ops.cpu.bfloat16`; one that is not contiguous is read from a
            copy), C-contiguous arrays, integers, booleans, NumPy floats, and NamedTuples of these, whose fields the
            kernel reads by name.
    """
    threads, team = min(torch.get_num_threads(), -(-items // grain)), _openmp()
    if team is None:
        given = [_as_arrays(x) for x in arguments]
        _pooled(lambda start, stop: kernel(start, stop, *given), items, grain, threads)
        return
    values: list[int] = [items, grain]
    copies: list[Tensor] = []
    kinds = tuple([_pack(x, values, copies) for x in arguments])
    slots, entry = Words("q", values), _entry(kernel, kinds)
    address = slots.buffer_info()[0]
    if threads > 1:
        team.GOMP_parallel(entry.body, address, threads, 0)
    elif threads == 1:
        entry.body(address)


def _pack(x: Any, values: list[int], copies: list[Tensor]) -> Any:
    """Append an argument's words to `values`, as numba lays it out, and return its kind: a number's type, an array's
    dtype and number of axes, or a NamedTuple's class and the kinds of its fields."""
    kind = type(x)
    if kind is int or kind is bool:
        values.append(x)
        return kind
    if isinstance(x, Tensor):
        if not x.is_contiguous():
            x = x.contiguous()
            copies.append(x)
        size, shape = x.itemsize, x.shape
        values += (0, 0, x.numel(), size, x.data_ptr(), *shape, *[size * step for step in x.stride()])
        return x.dtype, len(shape)
    if isinstance(x, tuple):
        return kind, tuple([_pack(field, values, copies) for field in x])
    if isinstance(x, np.ndarray):
        assert x.flags.c_contiguous
        values += [0, 0, x.size, x.itemsize, x.ctypes.data, *x.shape, *x.strides]  # no reference is counted
        return x.dtype, x.ndim
    values.append(int(x.view(f"int{8 * x.itemsize}")))
    return x.dtype


def _as_arrays(x: Any) -> Any:
    """An argument as numba takes it from Python."""
    if isinstance(x, tuple):
        return type(x)(*map(_as_arrays, x))
    return array(x) if isinstance(x, Tensor) else x


class _Entry(NamedTuple):
    """What each thread of a team calls, and what holds its machine code."""

    body: Any
    library: Any


@cache
def _entry(kernel: Any, kinds: tuple[Any, ...]) -> _Entry:
    """Of arguments of such kinds: a number's type, or an array's and how many axes it has.

    A thread finds items, grain and the kernel's arguments, as numba has them, behind one address in 64 bits each.

    From the first two it takes its piece; with that and the others it jumps to the kernel's machine code, which numba
    keeps on disk. Calling the kernel from another loop of numba's would compile it again in every process.
    """
    from llvmlite import ir
    from numba import from_dtype, types
    from numba.core.compiler_lock import global_compiler_lock

    def typed(kind: Any) -> Any:
        if isinstance(kind, tuple) and isinstance(kind[0], type) and issubclass(kind[0], tuple):
            return types.NamedTuple([typed(field) for field in kind[1]], kind[0])
        if isinstance(kind, tuple):
            return types.Array(typed(kind[0]), kind[1], "C")
        return from_dtype(array(torch.empty(0, dtype=kind)).dtype if isinstance(kind, torch.dtype) else np.dtype(kind))

    own = [typed(kind) for kind in kinds]
    signature = (types.int64, types.int64, *own)
    kernel.compile(signature)
    code, team = kernel.overloads[signature], _openmp()
    context, word, name = code.target_context, ir.IntType(64), f"entry_{id(code)}"
    module = ir.Module(name)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [word.as_pointer()]), name)
    build = ir.IRBuilder(function.append_basic_block())

    def slot(i: int) -> Any:
        return build.load(build.gep(function.args[0], [word(i)]))

    def outside(address: int, kind: Any, *arguments: Any) -> Any:
        return build.call(build.inttoptr(word(address), kind.as_pointer()), arguments)

    def number(function: Any) -> Any:
        address = ctypes.cast(function, ctypes.c_void_p).value or 0
        return build.sext(outside(address, ir.FunctionType(ir.IntType(32), [])), word)

    # The team may be smaller than asked for: it is one thread where we are inside of another already.
    items, grain, whole = slot(0), slot(1), build.mul(slot(1), number(team.omp_get_num_threads))
    piece = build.mul(build.sdiv(build.sub(build.add(items, whole), word(1)), whole), grain)
    start = build.mul(number(team.omp_get_thread_num), piece)
    stop = build.add(start, piece)
    stop = build.select(build.icmp_signed("<", stop, items), stop, items)
    with build.if_then(build.icmp_signed("<", start, stop)):
        shape = context.call_conv.get_function_type(types.none, signature)
        room = [build.alloca(kind.pointee) for kind in shape.args[:2]]  # for a result and an exception; neither comes
        given = [_typed(build, slot(2 + i), kind) for i, kind in enumerate(shape.args[4:])]
        outside(code.library.get_pointer_to_function(code.fndesc.llvm_func_name), shape, *room, start, stop, *given)
    build.ret_void()
    with global_compiler_lock:
        library = context.codegen().create_library(name)
        library.add_ir_module(module)
        library.finalize()
    return _Entry(_Body(library.get_pointer_to_function(name)), library)


def _typed(build: Any, bits: Any, kind: Any) -> Any:
    """64 bits as a value of an LLVM type."""
    from llvmlite import ir

    if isinstance(kind, ir.PointerType):
        return build.inttoptr(bits, kind)
    if isinstance(kind, ir.FloatType):
        return build.bitcast(build.trunc(bits, ir.IntType(32)), kind)
    if isinstance(kind, ir.DoubleType):
        return build.bitcast(bits, kind)
    return bits if kind.width == 64 else build.trunc(bits, kind)


@cache
def _openmp() -> Any:
    """The OpenMP runtime that torch has loaded; None where it is none of GNU's interface."""
    bundled = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    for place in (*map(str, bundled), None):
        with suppress(OSError, AttributeError, TypeError):
            team = ctypes.CDLL(place)
            team.GOMP_parallel.argtypes = [_Body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            team.GOMP_parallel.restype = None
            for function in (team.omp_get_num_threads, team.omp_get_thread_num):
                function.argtypes, function.restype = [], ctypes.c_int
            return team
    return None


def _pooled(work: Callable[[int, int], None], items: int, grain: int, threads: int) -> None:
    """`work` on the pieces of `run`, over threads of our own."""
    size = -(-items // (max(threads, 1) * grain)) * grain
    starts = range(size, items, max(size, 1))
    others = [_pool(os.getpid()).submit(work, start, min(start + size, items)) for start in starts]
    work(0, min(size, items))
    for other in others:
        other.result()


@cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads of this process: a fork inherits none."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="compiled")
