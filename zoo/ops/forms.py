"""Which form of an op runs: the one table of compiled loops, and what decides whether one is taken.

An op's `naive.py` is the truth, beside it stands a form in torch, which runs anywhere. Where torch is slow on a CPU,
`zoo.ops.cpu` has compiled loops in the same signature, listed in `CPU`. The public function of an op asks `choose`:

    @computes(naive.positive)
    def positive(x):
        return (choose("positive", x) or naive.positive)(x)

which `compiled("positive")(naive.positive)` says in one line. It has the signature of the naive form, which is written
out there alone. Numba takes a while to load, so a module of `zoo.ops.cpu` is imported when it is first chosen.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, update_wrapper, wraps
from importlib import import_module
from importlib.util import find_spec
from inspect import getdoc
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from zoo.ops import flops
from zoo.ops.arguments import checker
from zoo.ops.kernel_log import log_kernel

P = ParamSpec("P")
R = TypeVar("R")

SMALL = 1 << 13
"""Elements below which the overhead of calling a loop exceeds what it saves over torch's ops, as in a decoding step."""


@dataclass(frozen=True, slots=True)
class Form:
    """A compiled form of an op: where it stands, and what it is for."""

    function: str
    """`module:function` in `zoo.ops.cpu`, with the signature of the op's naive form."""
    name: str = "compiled loop"
    """What a record says."""
    bf16: bool = False
    """Whether it reads bfloat16 as it lies, beside float32."""
    least: int = 0
    """Elements of the first input that it takes to pay."""
    matmul: bool = False
    """Whether it multiplies matrices inside loops, which needs `matmul_backend`, and which FLOP counters cannot see."""
    counted: bool = False
    """Whether it reports these FLOPs itself; if not, it does not run while they are counted."""


CPU: dict[str, Form] = {
    "attention": Form("attention:attend", matmul=True),
    "cauchy": Form("cauchy:sums"),
    "gated_rms": Form("norms:gated_rms", bf16=True, least=SMALL),
    "long_convolution": Form("long_convolution:convolve", "fft, compiled loops", bf16=True, least=SMALL),
    "lsh_attention": Form("lsh_attention:exponentials"),
    "lsh_attention, backward": Form("lsh_attention:slopes"),
    "positive": Form("elementwise:positive", bf16=True, least=SMALL),
    "rms": Form("norms:rms", bf16=True, least=SMALL),
    "selective_scan, gated": Form("selective_scan:selective_scan", bf16=True),
    "short_convolution": Form("short_convolution:short_convolution", bf16=True),
    "slstm": Form("slstm:slstm"),
    "wkv4": Form("wkv4:wkv"),
    "delta_rule": Form("delta_rule:delta_rule", "chunked", matmul=True),
    "dplr": Form("dplr:dplr"),
    "h3": Form("h3:h3", bf16=True, least=SMALL),
    "linear_attention": Form("linear_attention:linear_attention", "chunked", matmul=True),
    "linear_attention, per channel": Form("channel_decay:linear_attention", "chunked", matmul=True, counted=True),
}
"""Compiled forms by op. Each makes a training step of some architecture at least 1.15 times as fast (docs/speed.md)."""


def choose(
    op: str, *inputs: Tensor | None, variant: str = "", matmul_dtype: torch.dtype | None = None
) -> Callable[..., Any] | None:
    """The compiled form of `op` that runs on these inputs, or None where its torch form does; logs which.

    Args:
        variant: of an op with several compiled forms, which one is meant.
        matmul_dtype: for a form that multiplies, what its products run in; by default the dtype of the first input.
    """
    form = CPU.get(f"{op}, {variant}" if variant else op)
    given = [x for x in inputs if x is not None]
    dtype = matmul_dtype or given[0].dtype
    if form is None or not _fits(form, given, dtype) or (function := _load(form.function)) is None:
        log_kernel(op, "torch")
        return None
    log_kernel(op, f"{form.name}, on {matmul_backend(dtype)}" if form.matmul else form.name)
    return function


def _fits(form: Form, given: list[Tensor], matmul_dtype: torch.dtype) -> bool:
    if not all(x.device.type == "cpu" and not x.is_neg() for x in given):
        return False
    if given[0].numel() < max(1, form.least) or not available():
        return False
    kinds = {x.dtype for x in given}  # no loop takes complex numbers
    narrow = {torch.float32, torch.bfloat16} if form.bf16 or form.matmul else {torch.float32}
    if not (kinds <= narrow or kinds == {torch.float64}):
        return False
    if form.matmul and matmul_backend(matmul_dtype) is None:
        return False
    return form.counted or not (form.matmul and flops.counting())


@cache
def _load(function: str) -> Callable[..., Any] | None:
    """A function of `zoo.ops.cpu`; None, with a warning, where numba cannot be used after all."""
    module, _, name = function.partition(":")
    try:
        return getattr(import_module(f"zoo.ops.cpu.{module}"), name)
    except Exception as error:  # numba raises whatever its parts do not find on this machine
        _turn_off(error)
        return None


class CompilationError(RuntimeError):
    """Numba cannot compile a loop."""


def public(op: Callable[P, R]) -> Callable[P, R]:
    """Have a function stand as the public one of an op: its arguments are checked as its annotations say (see
    `zoo.ops.arguments`), and torch computes it once more where numba cannot compile the loop that was chosen."""
    return wraps(op)(_public(op, op))


def _public(op: Callable[..., R], annotated: Callable[P, R]) -> Callable[P, R]:
    check = checker(annotated)

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        check(args, kwargs)
        try:
            return op(*args, **kwargs)
        except CompilationError as error:
            _turn_off(error)
        return op(*args, **kwargs)

    return call


def computes(naive: Callable[P, R]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Have a function stand for the naive form of an op: in that one's signature, whose docstring goes before its own.

    As `public` besides.
    """

    def decorate(op: Callable[..., R]) -> Callable[P, R]:
        call = update_wrapper(_public(op, naive), naive, assigned=["__annotations__"])
        call.__doc__ = "\n\n".join(doc for form in (naive, op) if (doc := getdoc(form)))
        return call

    return decorate


def compiled(op: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have the naive form of `op` computed by its compiled one, in the same signature, where that fits its tensors."""

    def decorate(naive: Callable[P, R]) -> Callable[P, R]:
        @computes(naive)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            tensors = (x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
            return (choose(op, *tensors) or naive)(*args, **kwargs)

        return call

    return decorate


failures: list[Exception] = []
"""Why this process uses no compiled loops; empty where it may."""

on_compile: list[Callable[[], None]] = []
"""Called before a loop is compiled that is not on disk, which takes seconds, and while an official kernel is checked,
which takes minutes: for a display, and for a supervisor."""


def _turn_off(error: Exception) -> None:
    """Use no more compiled loops in this process, and say why."""
    if not failures:
        reason = f"{type(error).__name__}: {error}"
        warnings.warn(f"compiled loops cannot be used, torch's ops run instead: {reason}", stacklevel=4)
    failures.append(error)


@contextmanager
def torch_alone() -> Iterator[None]:
    """While this is open, torch's forms compute everything, as they do on a GPU."""
    failures.append(RuntimeError("not wanted now"))
    try:
        yield
    finally:
        failures.pop()


def available() -> bool:
    """Whether there are compiled loops: numba is installed and works, and `ZOOBENCH_COMPILED` is not 0."""
    return not failures and _installed() and _load("jit:loop") is not None


@cache
def _installed() -> bool:
    wanted = os.environ.get("ZOOBENCH_COMPILED", "1") != "0"
    return wanted and find_spec("numba") is not None and find_spec("zoo.ops.cpu") is not None


@cache
def has_tiles() -> bool:
    """Whether this CPU multiplies bfloat16 matrices tile by tile (AMX), and Linux lets this process do so.

    `ZOOBENCH_TILES=0` leaves them to torch.
    """
    wanted = os.environ.get("ZOOBENCH_TILES", "1") != "0"
    tiles = wanted and _has("_is_amx_tile_supported", "amx-tile", "amx-bf16", "avx512bf16")
    return tiles and _cpu("_init_amx")


def _has(question: str, *features: str) -> bool:
    """Whether this CPU has what a function of `torch.cpu` says, and the one that numba compiles for these features."""
    return _cpu(question) and _target_features().issuperset(features)


@cache
def _target_features() -> frozenset[str]:
    """What the CPU has that numba compiles for, in LLVM's words: not this one's features where numba is told so, as by
    `NUMBA_CPU_NAME=generic`. LLVM ends the process over an instruction that is not among them."""
    if not _installed():
        return frozenset()
    try:
        from numba.core import codegen, config

        listed = config.CPU_FEATURES
        listed = codegen.get_host_cpu_features() if listed is None else listed
    except Exception as error:
        _turn_off(error)
        return frozenset()
    signs = {word[1:]: word[0] for word in listed.split(",") if word}  # the last one counts
    return frozenset(name for name, sign in signs.items() if sign == "+")


@cache
def _cpu(question: str) -> bool:
    """What a function of `torch.cpu` answers; no, with a warning, where this torch has none of that name."""
    answer = getattr(torch.cpu, question, None)
    if answer is None:
        warnings.warn(f"torch {torch.__version__} has no torch.cpu.{question}: loops do not multiply", stacklevel=3)
        return False
    return bool(answer())


def matmul_backend(dtype: torch.dtype) -> str | None:
    """What loops multiply matrices of `dtype` with: "matrix tiles", "vectors", or None where that is slow.

    A block of sums needs more registers than CPUs without AVX-512 have, and numba may compile for one
    that has less than this one. See `zoo.ops.cpu.matmul`.
    """
    if dtype is torch.bfloat16:
        vectors = _has("_is_avx512_bf16_supported", "avx512bf16")
        return "matrix tiles" if has_tiles() else "vectors" if vectors else None
    return "vectors" if dtype is torch.float32 and _has("_is_avx512_supported", "avx512f") else None


@cache
def load() -> None:
    """Load what numba loads on its first call, where compiled loops run."""
    if available():
        with suppress(Exception):  # numba raises whatever its parts do not find; each op warns of it
            import numba

            numba.njit(lambda: 0)()
