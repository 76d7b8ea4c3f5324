"""Compiled loops on torch's own threads, which wait awake between two ops.

Threads of our own would have to be woken, which takes longer than many a loop, and would share a core with torch's. So
the work goes to the very same ones, through the function that every `#pragma omp parallel` compiles to. Each of them
enters machine code at once and never meets Python, whose lock it would have to wait for. Where this cannot be done,
torch's ops run instead (`zoo.ops.forms.public`).
"""

import ctypes
from array import array as Words
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import from_dtype, types
from numba.core.compiler_lock import global_compiler_lock
from torch import Tensor

from zoo.ops.cpu.bfloat16 import array
from zoo.ops.forms import CompilationError

_WORD = ir.IntType(64)
_Body: Any = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """As torch's decorator of the same name, for loops, which read memory as it is: a gradient that torch keeps negated
    (its `is_neg`, as the imaginary part of a conjugate) is written out before."""

    def resolved(ctx: Any, *gradients: Tensor) -> Any:
        return backward(ctx, *(x.resolve_neg() for x in gradients))

    decorated: Callable[..., Any] = torch.autograd.function.once_differentiable(resolved)
    return decorated


def run(kernel: Any, items: int, *arguments: Any, grain: int = 1) -> None:
    """Run `kernel(start, stop, *arguments)` on pieces of range(items), one per thread that torch may use, at once.

    Args:
        kernel: a function compiled by `zoo.ops.cpu.jit.loop`.
        items: what is divided; pieces are multiples of `grain` long except the last.
        arguments: tensors on the CPU (bfloat16 as in `zoo.ops.cpu.bfloat16`) or arrays, which are read from a copy if
            not contiguous, integers, booleans, NumPy floats, and NamedTuples of these, whose fields the kernel reads by
            name.

    Raises:
        CompilationError: numba fails, or torch has other threads.
    """
    words: list[int] = [items, grain]
    copies: list[Tensor] = []
    kinds = tuple([_pack(x, words, copies) for x in arguments])
    (body, _), slots = _entry(kernel, kinds, len(words)), Words("q", words)
    threads, (address, _) = min(torch.get_num_threads(), -(-items // grain)), slots.buffer_info()
    if threads > 1:
        _openmp().GOMP_parallel(body, address, threads, 0)
    elif threads == 1:
        body(address)


def _pack(x: Any, words: list[int], copies: list[Tensor]) -> Any:
    """Append an argument's words, as numba lays it out, and return its kind: a number's type, an array's dtype and
    number of axes, or a NamedTuple's class and the kinds of its fields."""
    kind = type(x)
    if kind is int or kind is bool:
        words.append(x)
        return kind
    if isinstance(x, np.ndarray):
        x = torch.from_numpy(x)
    if isinstance(x, Tensor):
        if not x.is_contiguous():
            x = x.contiguous()
            copies.append(x)
        size, shape = x.itemsize, x.shape
        words += (0, 0, x.numel(), size, x.data_ptr(), *shape, *[size * step for step in x.stride()])
        return x.dtype, len(shape)
    if isinstance(x, tuple):
        return kind, tuple([_pack(field, words, copies) for field in x])
    words.append(int(x.view(f"int{8 * x.itemsize}")))
    return x.dtype


@cache
def _entry(kernel: Any, kinds: tuple[Any, ...], words: int) -> tuple[Any, Any]:
    """What each thread calls for arguments of such kinds in so many words, and what holds its machine code."""
    signature = (types.int64, types.int64, *map(_numba_type, kinds))
    try:
        kernel.compile(signature)
        return _build(kernel.overloads[signature], signature, words)
    except Exception as error:  # whatever has changed inside numba or torch
        said = f"{kernel.__name__} cannot be compiled ({type(error).__name__}: {error}); set ZOOBENCH_COMPILED=0"
        raise CompilationError(said) from error


def _numba_type(kind: Any) -> Any:
    """The numba type of an argument of that kind; see `_pack`."""
    if isinstance(kind, tuple) and isinstance(kind[0], type):
        return types.NamedTuple([_numba_type(field) for field in kind[1]], kind[0])
    if isinstance(kind, tuple):
        return types.Array(_numba_type(kind[0]), kind[1], "C")
    return from_dtype(array(torch.empty(0, dtype=kind)).dtype if isinstance(kind, torch.dtype) else np.dtype(kind))


def _build(code: Any, signature: tuple[Any, ...], words: int) -> tuple[Any, Any]:
    """A function that finds items, grain and a kernel's arguments, as numba has them, behind one address, in 64 bits
    each, works out its thread's piece from the first two, and jumps to the kernel's machine code.

    That is the code which numba keeps on disk: a kernel called from another loop of numba's would be compiled again in
    every process.
    """
    context, name = code.target_context, f"entry_{id(code)}"
    shape = context.call_conv.get_function_type(types.none, signature)
    if len(shape.args) != 2 + words:
        raise TypeError(f"numba hands over {len(shape.args) - 2} words, not {words}")
    module = ir.Module(name)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_WORD.as_pointer()]), name)
    build = ir.IRBuilder(function.append_basic_block())
    slots = [build.load(build.gep(function.args[0], [_WORD(i)])) for i in range(words)]
    start, stop = _piece(build, *slots[:2])
    with build.if_then(build.icmp_signed("<", start, stop)):
        unused = [build.alloca(kind.pointee) for kind in shape.args[:2]]  # for a result and an exception; neither comes
        given = [_typed(build, word, kind) for word, kind in zip(slots[2:], shape.args[4:], strict=True)]
        address = code.library.get_pointer_to_function(code.fndesc.llvm_func_name)
        _call(build, address, shape, *unused, start, stop, *given)
    build.ret_void()
    with global_compiler_lock:
        library = context.codegen().create_library(name)
        library.add_ir_module(module)
        library.finalize()
    return _Body(library.get_pointer_to_function(name)), library


def _piece(build: Any, items: Any, grain: Any) -> tuple[Any, Any]:
    """Where this thread starts and stops. The team may be smaller than asked for: one thread inside of another team."""
    team = _openmp()

    def number(function: Any) -> Any:
        address = ctypes.cast(function, ctypes.c_void_p).value or 0
        return build.sext(_call(build, address, ir.FunctionType(ir.IntType(32), [])), _WORD)

    whole = build.mul(grain, number(team.omp_get_num_threads))
    piece = build.mul(build.sdiv(build.sub(build.add(items, whole), _WORD(1)), whole), grain)
    start = build.mul(number(team.omp_get_thread_num), piece)
    stop = build.add(start, piece)
    return start, build.select(build.icmp_signed("<", stop, items), stop, items)


def _call(build: Any, address: int, kind: Any, *arguments: Any) -> Any:
    """Call what stands at an address of this process."""
    return build.call(build.inttoptr(_WORD(address), kind.as_pointer()), arguments)


def _typed(build: Any, bits: Any, kind: Any) -> Any:
    """64 bits as a value of an LLVM type."""
    if isinstance(kind, ir.PointerType):
        return build.inttoptr(bits, kind)
    if isinstance(kind, ir.FloatType):
        return build.bitcast(build.trunc(bits, ir.IntType(32)), kind)
    if isinstance(kind, ir.DoubleType):
        return build.bitcast(bits, kind)
    return bits if kind.width == 64 else build.trunc(bits, kind)


@cache
def _openmp() -> Any:
    """The OpenMP runtime that torch has loaded.

    Raises:
        OSError: it has none of GNU's interface.
    """
    package = Path(torch.__file__).parent  # beside it: where auditwheel puts libraries, as in wheels for ARM
    bundled = sorted(str(path) for at in ("lib", "../torch.libs") for path in (package / at).glob("lib*omp[.-]*"))
    for place in (*bundled, None):
        with suppress(OSError, AttributeError, TypeError):
            team = ctypes.CDLL(place)
            team.GOMP_parallel.argtypes = [_Body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
            team.GOMP_parallel.restype = None
            return team
    raise OSError("torch's OpenMP has no GNU interface")
