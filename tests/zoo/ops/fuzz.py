"""Random calls of every public op, whose tensors begin or end at a page that nobody may touch.

    python tests/zoo/ops/fuzz.py 1000000              # a line for each call at fault, which --first makes again

Half of the calls fit the op's signature and must equal its naive form in float64, gradients too; the others are spoilt
in one place and must be refused, or equal it as well. Tensors have many layouts. All that a loop is given (inputs,
outputs, what lies between) and all that it allocates lies in such memory too, NaN at first. A loop that reads or writes
beyond it ends the process, and the call is named; where memory has no guard on one side, bytes there must stay.
"""

import argparse
import ctypes
import math
import mmap
import pkgutil
import random
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from inspect import Parameter, signature, unwrap
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
import torch
import torch.nn.functional as F
from llvmlite import binding
from numba.core import registry
from numba.core.runtime._nrt_python import c_helpers as helpers
from torch import Tensor

import zoo.ops.cpu
from zoo.ops import arguments, attention, delta_rule, diagonal_scan, forms, linear_attention, long_convolution
from zoo.ops.carried_attention import path_attention
from zoo.ops.cpu import threads
from zoo.ops.log_linear_attention import log_linear_attention, log_linear_delta_rule
from zoo.ops.lsh_attention import lsh_attention
from zoo.ops.mesa import mesa, mesa_naive
from zoo.ops.mlstm import mlstm
from zoo.ops.short_convolution import Unit
from zoo.ops.slstm import slstm
from zoo.ops.ttt import titans_linear, ttt_linear
from zoo.ops.wkv4 import wkv


def _dplr(*inputs, floor=None, **more):
    return delta_rule.dplr_naive(*inputs, **more)


def _linear(q, k, v, log_decay=None, state=None, chunk=64, bonus=None, scale=1.0):
    y, S = linear_attention.recurrent(q, k, v, log_decay, state, bonus)
    return y * scale, S


def _mean(q, k, v, eps, state=None, total=None, *, log_decay=None, floor=None):
    before = None if state is None or total is None else torch.cat([state, total[..., None]], dim=-1)
    y, S = linear_attention.recurrent(q, k, F.pad(v, (0, 1), value=1.0), log_decay, before)
    weight = y[..., -1:].abs() if floor is None else torch.maximum(y[..., -1:].abs(), floor[..., None])
    return y[..., :-1] / (weight + eps), S[..., :-1], S[..., -1]


_modules = [import_module(f"zoo.ops.{m.name}") for m in pkgutil.iter_modules(zoo.ops.__path__) if m.ispkg]
_names = [(module, name) for module in _modules for name in getattr(module, "__all__", ())]
OPS: list[Callable[..., Any]] = [f for module, name in _names if hasattr(f := getattr(module, name), "__wrapped__")]
NAIVE = {
    delta_rule.dplr: _dplr,
    linear_attention.linear_attention: _linear,
    linear_attention.weighted_mean: _mean,
    long_convolution.convolve: long_convolution.convolve_naive,
    mesa: lambda *inputs, iterations=30, **more: mesa_naive(*inputs, **more),
}
"""Where it is not what an op wraps."""
LOG_LINEAR = log_linear_attention, log_linear_delta_rule
CONSTANT = {
    wkv: ".state.o",
    mlstm: ".state.2",
    slstm: ".state.3",
    linear_attention.weighted_mean: ".floor",
    **dict.fromkeys(LOG_LINEAR, ".state.0"),
}
"""Arguments that have no gradient."""
SCALED = (wkv, mlstm)
"""Ops whose states hold a factor that is a constant to some forms: only gradients of their outputs are compared."""
PADDED = dict.fromkeys((mlstm, titans_linear, ttt_linear, wkv), "mask")
PADDED |= dict.fromkeys((*LOG_LINEAR, lsh_attention), "valid")
"""Masks of ops whose outputs are arbitrary where they are false."""
FLOATS = (*[torch.float32] * 3, *[torch.bfloat16] * 2, torch.float64, torch.float16)
NUMBERS: dict[Any, tuple[Any, ...]] = {
    float: (0.0, math.nan, math.inf, -math.inf, 1j, True),
    int: (0, -1, -1 << 63, 1 << 70, 1.0, True),
}
"""What takes the place of a number that fits."""
TOLERANCE = {torch.float64: 1e-6, torch.float32: 5e-3, torch.float16: 0.05, torch.bfloat16: 0.15}
PAGE, SIZE = mmap.PAGESIZE, 1 << 22
NAN = b"\xff" * PAGE


class Arena:
    """Memory between two pages that nobody may touch."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, SIZE + 2 * PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        for guard in (start, start + PAGE + SIZE):
            assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(PAGE), 0) == 0
        self.bytes = (ctypes.c_char * SIZE).from_address(start + PAGE)

    def take(self, size: int, at_end: bool) -> int:
        """The address of so many bytes, NaN in any dtype, behind the first guard or before the second."""
        assert size + PAGE <= SIZE
        self.start = SIZE - size if at_end else 0
        self.beside = slice(self.start - PAGE, self.start) if at_end else slice(size, size + PAGE)
        ctypes.memset(ctypes.byref(self.bytes, min(self.start, self.beside.start)), 255, size + PAGE)
        return ctypes.addressof(self.bytes) + self.start

    def place(self, x: Tensor, strides: tuple[int, ...], at_end: bool) -> Tensor:
        """A copy of x whose numbers stand `strides` apart."""
        count = 1 + sum((n - 1) * step for n, step in zip(x.shape, strides, strict=True)) if x.numel() else 0
        self.take(count * x.itemsize, at_end)
        if not count:
            return x.clone()
        numbers = torch.frombuffer(self.bytes, dtype=x.dtype, count=count, offset=self.start)
        return numbers.as_strided(x.shape, strides).copy_(x)

    def overrun(self) -> bool:
        """Whether anything was written beside what was taken, on the side without a guard."""
        return bool(self.bytes[self.beside] != NAN)


class Guarded:
    """Arenas for the tensors of one call after the other, in random layouts."""

    def __init__(self) -> None:
        self.arenas: list[Arena] = []
        self.used, self.negated = 0, 0.0

    def arena(self) -> Arena:
        """The next one that is free."""
        if self.used == len(self.arenas):
            self.arenas.append(Arena())
        self.used += 1
        return self.arenas[self.used - 1]

    def overrun(self, first: int = 0) -> bool:
        """Whether anything was written beside what lies in arenas from that one on."""
        return any(arena.overrun() for arena in self.arenas[first : self.used])

    def place(self, x: Tensor, r: random.Random) -> Tensor:
        if x.layout is not torch.strided or x.is_meta:
            return x
        layout = r.choice(("plain", "plain", "permuted", "gaps", "expanded"))
        if layout == "expanded" and x.numel() and x.ndim:
            return self.place(x.narrow(r.randrange(x.ndim), 0, 1), r).expand(x.shape)
        if negated := differentiable(x) and r.random() < self.negated:
            x = x.conj().resolve_conj() if x.is_complex() else -x
        order, strides, step = [*range(x.ndim)], [0] * x.ndim, 1
        if layout == "permuted":
            r.shuffle(order)
        for i in reversed(order):
            strides[i] = step = step * (r.choice((1, 2)) if layout == "gaps" else 1)
            step *= max(1, x.shape[i])
        y = self.arena().place(x, tuple(strides), r.random() < 0.7)
        return y if not negated else y.conj() if y.is_complex() else torch._neg_view(y)


@cache
def _parameters(op: Callable[..., Any]) -> Mapping[str, Parameter]:
    return signature(op).parameters


class GuardedLoops:
    """Compiled loops whose arrays lie between guards while they run, and what they allocate until they free it."""

    def __init__(self, guarded: Guarded) -> None:
        self.guarded, self.allocated, self.free, self.turn = guarded, dict[int, Arena](), list[Arena](), 0
        api = ctypes.CFUNCTYPE(ctypes.c_void_p)(helpers["get_api"])()
        new = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        self.new = new((ctypes.c_void_p * 3).from_address(api)[2])  # manage_memory of numba's NRT_api_functions
        self.allocator = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32)(self.allocate)
        self.destructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.release)

    def install(self) -> None:
        """Have the ops of this process, which has compiled nothing yet, run their loops so."""
        registry.cpu_target.target_context.refresh()  # binds the names to numba's own
        for name in ("alloc_aligned", "alloc_safe_aligned"):
            binding.add_symbol(f"NRT_MemInfo_{name}", ctypes.cast(self.allocator, ctypes.c_void_p).value)
        for module in [import_module(f"zoo.ops.cpu.{m.name}") for m in pkgutil.iter_modules(zoo.ops.cpu.__path__)]:
            if vars(module).get("run") is threads.run and module is not threads:
                module.run = self.run

    def allocate(self, size: int, _: int) -> Any:
        arena = self.free.pop() if self.free else Arena()
        address = arena.take(size, self.turn % 3 > 0)
        self.allocated[address] = arena
        return self.new(address, self.destructor)

    def release(self, address: int) -> None:
        arena = self.allocated.pop(address)
        if arena.overrun():
            self.beside = True
        self.free.append(arena)

    def run(self, kernel: Any, items: int, *arguments: Any, grain: int = 1) -> None:
        """`threads.run` on copies between guards, which go back afterwards. Arrays that overlap lie in one."""
        first, self.beside, self.turn = self.guarded.used, False, self.turn + 1
        arguments = mapped(arguments, lambda _, x: x.contiguous())
        spans: list[list[Any]] = []
        for start, size in sorted({(x.data_ptr(), x.nbytes) for _, x in tensors(arguments)}):
            if spans and start < spans[-1][1]:
                spans[-1][1] = max(spans[-1][1], start + size)
            elif size:
                spans.append([start, start + size, self.guarded.arena()])
        for start, end, arena in spans:
            ctypes.memmove(arena.take(end - start, self.turn % 2 > 0), start, end - start)

        def moved(_: str, x: Tensor) -> Tensor:
            if not x.nbytes:
                return x
            start, _, arena = next(span for span in spans if span[0] <= x.data_ptr() < span[1])
            offset = arena.start + x.data_ptr() - start
            return torch.frombuffer(arena.bytes, dtype=x.dtype, count=x.numel(), offset=offset).view(x.shape)

        threads.run(kernel, items, *mapped(arguments, moved), grain=grain)
        for start, end, arena in spans:
            ctypes.memmove(start, ctypes.byref(arena.bytes, arena.start), end - start)
        if self.beside or self.allocated or self.guarded.overrun(first):
            raise AssertionError(f"{kernel.__module__}.{kernel.__name__} wrote beside an array")
        self.guarded.used = first


class Draw:
    """One random call, from the annotations of an op; `plain`: in float32."""

    def __init__(self, op: Callable[..., Any], r: random.Random, plain: bool) -> None:
        self.op, self.r, self.sizes = op, r, dict[str, Any]()
        self.dtypes = (torch.float32,) if plain else FLOATS if r.random() < 0.2 else (r.choice(FLOATS),)
        self.kind, self.long, self.empty = r.choice(("Float", "Complex")), r.random() < 0.08, r.random() < 0.03
        if op in (diagonal_scan.scan, diagonal_scan.step):
            self.dtypes = self.dtypes[:1]

    def arguments(self) -> dict[str, Any]:
        hints, parameters = arguments._hints(self.op), _parameters(self.op)
        asked = [name for name, p in parameters.items() if p.default is p.empty or self.r.random() < 0.6]
        given = {name: self.value(name, hints[name]) for name in asked}
        if (given.get("total") is None) != (given.get("state") is None):  # what a mean continues from
            given.pop("total", None)
        if not given.get("duplicates", True):
            given.update(before=1, after=0)
        if self.op is linear_attention.weighted_mean:  # whose denominators must not cancel
            given.update((name, given[name].abs() + 0.5) for name in ("q", "k", "total") if given.get(name) is not None)
        if self.op is mesa:  # whose solver must be done, and whose matrices positive, which some layouts would undo
            given.update(iterations=64, ridge=0.5 + given["ridge"].abs(), state=None)
        if self.op in (*LOG_LINEAR, titans_linear, ttt_linear):  # whose padding stands on the right
            if (padding := given.get(PADDED[self.op])) is not None:
                given[PADDED[self.op]] = padding.sort(-1, descending=True).values
            if given.get("under_way"):
                given["under_way"] = *given["under_way"][:-1], given["under_way"][-1] % given["size"]
        if self.op in LOG_LINEAR and given.get("state"):  # which has a block for each bit of its steps
            S, n = given["state"][0], given["state"][1].clamp(min=0)
            there = n[:, None] >> torch.arange(S.shape[2]) & 1 == 1
            given["state"] = S.masked_fill(~there[:, None, :, None, None], 0), n
        if self.op is path_attention:  # whose products must not grow
            given["w"] = F.normalize(given["w"], dim=-1)
        if self.op is log_linear_delta_rule:  # nor these
            given["k"] = F.normalize(given["k"], dim=-1)
        if self.op is mlstm:
            given["eps"] = 1e-9
        if self.op is slstm and given.get("state"):
            given["state"] = *given["state"][:2], 1 + given["state"][2].abs(), given["state"][3]
        if self.op is wkv and given.get("state"):
            given["state"]["q"] = 0.1 + given["state"]["q"].abs()
        return given

    def size(self, axis: str) -> int:
        """A few; sometimes as many as fill vectors, blocks and chunks."""
        if self.empty and self.r.random() < 0.3:
            return 0
        if self.long and axis in "TS":
            return self.r.choice((16, 31, 32, 33, *(63, 64, 65, 66, 70, 129) * (self.op is not lsh_attention)))
        if not self.long and axis in "KVDCFNd" and self.r.random() < 0.15:
            return self.r.choice((15, 16, 17, 31, 32, 33, 64, 65, *(127, 129, 257) * (axis in "DC")))
        if axis in "GJ" and "H" in self.sizes:  # heads of q that share those of k and v
            return self.r.choice([n for n in (1, 2, 3) if self.sizes["H"] % n == 0])
        if axis == "H":
            return self.sizes.get("G", 1) * self.r.randint(1, 3)
        return self.r.randint(1, 3 if axis in "BGJRM" else 9)

    def shape(self, axes: str) -> tuple[int, ...]:
        found: list[int] = []
        for axis in axes.split():
            name, _, less = axis.lstrip("#").partition("-")
            if axis[0] == "*":
                found += self.sizes.setdefault(
                    axis, [self.r.randint(int(not self.empty), 4) for _ in range(self.r.randrange(3))]
                )
            elif axis[0] == "#" and self.r.random() < 0.3:
                found.append(1)
            else:
                size = int(name) if name.isdigit() else self.sizes.setdefault(name, self.size(name))
                found.append(max(0, size - int(less or 0)))
        return tuple(found)

    def value(self, name: str, hint: Any) -> Any:
        origin, parts = get_origin(hint), get_args(hint)
        if origin in (Union, UnionType):
            return self.value(name, self.r.choice(parts))
        if origin is tuple:
            return tuple(self.value(name, part) for part in parts)
        if is_typeddict(hint):
            return {key: self.value(key, part) for key, part in get_type_hints(hint).items()}
        if hasattr(hint, "dim_str"):
            return self.tensor(name, hint.dtype.__name__, self.shape(hint.dim_str))
        if hint is Unit:
            heads = self.r.choice([n for n in range(1, 5) if self.sizes["D"] % n == 0])
            return Unit(tuple(self.r.choice((0, 0.5, 1.0)) for _ in range(heads)))
        counts = {"before": (0, 1, 2), "after": (0, 1)}.get(name, (1, 2, 4, 8, 16, 33, 64))
        choices = {bool: (True, False), float: (1e-3, 0.5, 1.0), int: counts, torch.dtype: self.dtypes}
        return None if hint is NoneType else self.r.choice(parts if origin is Literal else choices[hint])

    def tensor(self, name: str, kind: str, shape: tuple[int, ...]) -> Tensor:
        """In ranges in which the ops stay finite: what fades is negative, and what feeds back is small."""
        if kind == "Bool":
            x = torch.rand(shape) < 0.7
            return x.sort(-1, descending=True).values if name == "valid" else x
        if kind == "Int":
            return torch.randint(-1, 4, shape)
        x, dtype = torch.randn(shape, dtype=torch.float64), self.r.choice(self.dtypes)
        x = -x.abs() - 0.01 if name in ("log_decay", "log_momentum", "log_a", "A", "w") else x
        x = x.sigmoid() if name in ("beta", "delta", "floor", "rate", "step") else x
        if (self.kind if kind == "Inexact" else kind) == "Complex":
            x = torch.complex(-x.abs() if name == "a" else x, torch.randn(shape, dtype=torch.float64)) / 2
            dtype = (torch.float64 if dtype is torch.float64 else torch.float32).to_complex()
        x = x / (1 + x.abs()) if name == "a" else x / (1 + shape[-1] ** 0.5) if name in ("k", "b", "p", "R") else x
        return x.to(dtype)


def spoilt(x: Any, r: random.Random) -> Any:
    """A tensor, or a state, changed so that it may not fit the others."""
    if isinstance(x, dict):
        key = r.choice([*x])
        return {**x, key: spoilt(x[key], r)}
    if isinstance(x, tuple):
        i = r.randrange(len(x))
        return (*x[:i], spoilt(x[i], r), *x[i + 1 :])
    if type(x) in NUMBERS:
        return r.choice(NUMBERS[type(x)])
    if x is None:
        return 1.0
    how = r.choice(("size", "size", "size", "axes", "dtype", "number", "number", "other"))
    if how == "size" and x.numel() and x.ndim:
        i, n = (i := r.randrange(x.ndim)), x.shape[i]
        return x.index_select(i, torch.arange(r.choice((0, 1, 2, n - 1, n + 1, 2 * n))) % n)
    if how == "axes":
        others = (x.movedim(0, -1), x.flatten(0, 1)) if x.ndim > 1 else ()
        return r.choice((x[None], x[..., None], *others))
    if how == "dtype":
        return (x.real if x.is_complex() else x).to(r.choice((torch.int32, torch.bool, torch.complex64, *TOLERANCE)))
    if how == "number" and x.numel() and x.dtype is not torch.bool:
        y, numbers = x.clone().flatten(), (-1, 0, 7, 1 << 31, -1 << 31)
        y[r.randrange(len(y))] = r.choice((math.nan, math.inf, -math.inf) if differentiable(x) else numbers)
        return y.view(x.shape)
    return r.choice((x.to("meta"), x.to_sparse() if x.ndim and x.dtype is torch.float32 else None, None, 1.0))


def tensors(x: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(x, Tensor):
        yield path, x
    elif isinstance(x, tuple | list | dict):
        for key, part in x.items() if isinstance(x, dict) else enumerate(x):
            yield from tensors(part, f"{path}.{key}")


def mapped(x: Any, change: Callable[[str, Tensor], Tensor], path: str = "") -> Any:
    if isinstance(x, Tensor | np.ndarray):
        return change(path, torch.as_tensor(x))
    if isinstance(x, dict):
        return {key: mapped(part, change, f"{path}.{key}") for key, part in x.items()}
    if isinstance(x, tuple) and not isinstance(x, Unit):
        parts = [mapped(part, change, f"{path}.{i}") for i, part in enumerate(x)]
        return type(x)(*parts) if hasattr(x, "_fields") else tuple(parts)
    return x


def differentiable(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def in_float64(x: Tensor) -> Tensor:
    return x.to(torch.complex128 if x.is_complex() else torch.float64) if differentiable(x) else x


def results(form: Callable[..., Any], op: Any, given: dict[str, Any]) -> tuple[list[Tensor], ...]:
    """Outputs, the inputs that have gradients, and the outputs that these are of."""
    found = [y for _, y in tensors(form(**given))]
    if (mask := given.get(PADDED.get(op, ""))) is not None:
        found[0] = found[0].masked_fill(~(mask[..., None] if op is wkv else mask[:, None, :, None]), 0)
    leaves = [x for _, x in tensors(given) if x.requires_grad]
    through = [y for y in found[: 1 if op in SCALED else None] if y.requires_grad and leaves]
    return found, leaves, through


def fault(op: Callable[..., Any], seed: int, guarded: Guarded, plain: bool) -> str | None:
    """What is wrong with one call."""
    r = random.Random(seed)
    guarded.used, guarded.negated = 0, r.choice((*[0.0] * 7, 0.5))
    torch.default_generator.manual_seed(seed)
    draw = Draw(op, r, plain)
    given = draw.arguments()
    fits = not draw.empty
    if r.random() < 0.5:
        name = r.choice([name for name, x in given.items() if any(True for _ in tensors(x)) or type(x) in NUMBERS])
        given[name], fits = spoilt(given[name], r), False
    given = mapped(given, lambda _, x: guarded.place(x, r))
    copies = mapped(given, lambda _, x: x if x.is_meta or x.is_sparse else x.resolve_neg().resolve_conj().clone())
    back = {path for path, x in tensors(given) if differentiable(x) and r.random() < 0.5 and path != CONSTANT.get(op)}
    given = mapped(given, lambda path, x: x.detach().requires_grad_(path in back))
    try:
        got, leaves, through = results(op, op, given)
        if any(y.is_meta for y in got):
            return None
        weights = [guarded.place(torch.randn(y.shape, dtype=torch.float64).to(y.dtype), r) for y in through]
        fixed = [w.resolve_neg().resolve_conj().clone() for w in weights]
        slopes = torch.autograd.grad(through, leaves, weights, materialize_grads=True) if through else ()
    except ValueError as error:
        clear = any(word in str(error) for word in ("expected", "make them equal", "unit has", "duplicates are"))
        return None if not fits and clear else f"refused: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    pairs = zip(tensors([given, weights]), tensors([copies, fixed]), strict=True)
    kept = all(torch.equal(x, y) or bool(((x == y) | (x != x) & (y != y)).all()) for (_, x), (_, y) in pairs)
    if not kept or guarded.overrun():
        return "it wrote to its inputs, or beside them"
    wide = mapped(copies, lambda path, x: in_float64(x).requires_grad_(path in back))
    dtypes = [(x.real if x.is_complex() else x).dtype for _, x in tensors([copies, got]) if differentiable(x)]
    limit = max(TOLERANCE[dtype] for dtype in dtypes)
    wild = not all(math.isfinite(x) for x in given.values() if isinstance(x, float))
    wild = wild or not all(bool(x.isfinite().all()) for _, x in tensors(copies))
    try:
        want, leaves, _ = results(NAIVE.get(op, unwrap(op)), op, {**wide, **dict.fromkeys({"dtype"} & wide.keys())})
        at = [n for n, y in enumerate(got) if any(y is z for z in through)]
        pairs = [(want[n], w.to(want[n].dtype)) for n, w in zip(at, fixed, strict=True) if want[n].requires_grad]
        outputs, by = zip(*pairs, strict=True) if pairs else ((), ())
        true = torch.autograd.grad(outputs, leaves, by, materialize_grads=True) if pairs else slopes
        for y, exact in zip((*got, *slopes), (*want, *true), strict=True):
            y, exact = (x.int() if x.dtype is torch.bool else x for x in (y, exact))
            if wild and y.shape == exact.shape:  # 0 times infinity is NaN, where a form multiplies by 0
                both = y.isfinite() & exact.isfinite()
                y, exact = y.where(both, 0), exact.where(both, 0)
            if y.shape == exact.shape and bool(((y.to(exact.dtype) - exact).abs() <= limit).all()):
                continue
            size = 1 + float(exact.detach().abs().nan_to_num(0, 0, 0).max()) if exact.numel() else 1
            torch.testing.assert_close(y.to(exact.dtype), exact, rtol=limit, atol=limit * size, equal_nan=True)
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace("\n", " ")
    return None


def child(first: int, count: int, plain: bool, place: str) -> None:
    """Make calls first, first + 1, …, and write down each before it is made."""
    forms.CPU = {op: replace(form, least=0) for op, form in forms.CPU.items()}
    available, guarded = forms.available, Guarded()
    GuardedLoops(guarded).install()
    warnings.simplefilter("ignore")
    with open(place, "r+b", buffering=0) as now:
        for n in range(first, first + count):
            now.seek(0)
            now.write(n.to_bytes(8, "little"))
            turn, op = n // len(OPS), OPS[n % len(OPS)]
            forms.available = (lambda: False) if turn % 5 == 4 else available
            attention.LEAST = 0 if turn % 3 else 64
            torch.set_num_threads(1 if turn % 7 else 3)
            torch.use_deterministic_algorithms(turn % 4 > 0, warn_only=True)  # whose torch.empty is NaN
            if what := fault(op, n, guarded, plain):
                print(n, f"{arguments._label(unwrap(op))}: {what}", flush=True)


def hunt(count: int, first: int = 0, plain: bool = False) -> Iterator[str]:
    """What is wrong with any of so many calls, made by another process."""
    end = first + count
    with tempfile.NamedTemporaryFile() as now:
        now.truncate(8)
        while first < end:
            options = [*(f"--first={first}", f"--place={now.name}", str(end - first)), *["--plain"] * plain]
            command = [sys.executable, "-X", "faulthandler", __file__, *options]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
                assert run.stdout is not None
                yield from map(str.strip, run.stdout)
            if run.returncode == 0:
                return
            first = int.from_bytes(Path(now.name).read_bytes(), "little") + 1
            yield f"{first - 1} {arguments._label(unwrap(OPS[(first - 1) % len(OPS)]))}: ended with {run.returncode}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, help="calls")
    parser.add_argument("--first", type=int, default=0, help="the number of the first")
    parser.add_argument("--plain", action="store_true", help="in float32 only")
    parser.add_argument("--place", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.place:
        child(given.first, given.count, given.plain, given.place)
    else:
        for line in hunt(given.count, given.first, given.plain):
            print(line, flush=True)
