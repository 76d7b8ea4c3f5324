"""Official CUDA kernels in the place of our own forms.

An official kernel stands in an op's `official.py`, and computes on a GPU once its outputs and gradients have equalled
those of the op's naive form: see `compute`.
"""

import functools
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from zoo.ops import flops, forms
from zoo.ops.kernel_log import log_kernel

refused: dict[str, str] = {}
"""Official kernels that did not pass their check, by name and inputs, and why."""

OPS = ("selective_scan", "linear_attention", "delta_rule")
"""Ops with an `official.py`, whose `KERNELS` are its official kernels."""

DTYPES = (torch.float32, torch.bfloat16)
"""What most kernels run in."""

LOWEST = -100.0
"""For log decays: e^−100 is 0 beside any float32, and sums of 64 of them still have digits, unlike those of −inf."""


@dataclass(frozen=True)
class Official:
    """A kernel of another package in our signature: it computes what `naive` does, from the same arguments.

    `draw(random, T, *sizes)` makes all of these arguments in float64, for two rows of T steps: those that are not
    given, it is checked without. It is checked at several `lengths` where it takes other paths for longer rows.
    `sizes` are usual ones; the arguments in the places `unused` it never takes.
    """

    op: str
    form: str
    package: str
    install: str
    run: Callable[..., tuple[Tensor, Tensor]]
    naive: Callable[..., tuple[Tensor, Tensor]]
    draw: Callable[..., list[Tensor]]
    sizes: tuple[int, ...]
    unused: tuple[int, ...] = ()
    dtypes: tuple[torch.dtype, ...] = DTYPES
    lengths: tuple[int, ...] = (72,)


def compute(kernel: Official, dtype: torch.dtype, sizes: tuple[int, ...], *inputs: Tensor | None) -> tuple | None:
    """Output and state as `kernel` computes them; None, where our own form has to, unless the inputs are all on one
    GPU, its package is installed, and it equals the naive form.

    Equality is checked for each of `dtype` (what its matrix products run in), `sizes` (of features, for `draw`), dtypes
    of inputs and which of them are given: once on a machine, in a process of its own (see `check_official`). A kernel
    that cannot be checked or is not equal stands in `refused`, with a warning. None is used under
    `ZOOBENCH_OFFICIAL=0`, nor where torch is told to be deterministic (some add up gradients in any order), nor while
    FLOPs are counted, of which torch's counter would not see its own.
    """
    given = [x for x in inputs if x is not None]
    if not all(on_gpu(x) for x in given) or dtype not in kernel.dtypes or not installed(kernel.package):
        return None
    if os.environ.get("ZOOBENCH_OFFICIAL", "1") == "0" or torch.are_deterministic_algorithms_enabled():
        return None
    dtypes = tuple(None if x is None else x.dtype for x in inputs)
    equal = _equals_naive(kernel, dtype, sizes, dtypes, given[0].device, tolerance(dtype))
    if not equal or flops.counting():
        return None
    log_kernel(kernel.op, kernel.form)
    return kernel.run(*inputs)


def on_gpu(x: Tensor) -> bool:
    """Whether official kernels can reach `x`."""
    return x.is_cuda


@functools.cache
def installed(package: str) -> bool:
    """Whether `package` can be imported, found without importing it."""
    return find_spec(package) is not None


def tolerance(dtype: torch.dtype) -> float:
    """The largest relative error, of any output or gradient, with which a kernel counts as equal.

    Some five roundings of bfloat16; as many of TF32 for float32 where torch's own matrix products may use that.
    """
    if dtype is torch.bfloat16:
        return 2e-2
    return 1e-4 if torch.get_float32_matmul_precision() == "highest" else 5e-3


@functools.cache
def _equals_naive(
    kernel: Official,
    dtype: torch.dtype,
    sizes: tuple[int, ...],
    dtypes: tuple[torch.dtype | None, ...],
    device: torch.device,
    limit: float,
) -> bool:
    from zoo.ops import check_official

    found = check_official.compare(kernel, sizes, dtypes, device)
    error = max(found.get("errors", {}).values(), default=float("inf"))
    if error > limit:
        reason = found.get("reason") or f"a relative error of {error:.1g} beside the naive form, more than {limit:.1g}"
        name = f"{kernel.op} by {kernel.form} ({str(dtype).removeprefix('torch.')}, sizes {sizes})"
        refused[name] = reason
        warnings.warn(f"not used: {name}: {reason}. zoobench's own form runs instead.", stacklevel=5)
    return error <= limit


def errors(
    kernel: Official, sizes: tuple[int, ...], dtypes: tuple[torch.dtype | None, ...], device: torch.device
) -> dict[str, float]:
    """‖official − naive‖ / ‖naive‖ of `output`, `state` and (the largest of) `gradients`, at the worst of its lengths.

    The naive form runs in float64, on the CPU.
    """
    found = [_errors(kernel, sizes, dtypes, device, T) for T in kernel.lengths]
    return {part: max(at[part] for at in found) for part in found[0]}


def _errors(
    kernel: Official, sizes: tuple[int, ...], dtypes: tuple[torch.dtype | None, ...], device: torch.device, T: int
) -> dict[str, float]:
    with torch.inference_mode(False), torch.enable_grad():
        random = torch.Generator().manual_seed(0)
        drawn = kernel.draw(random, T, *sizes)
        given = [None if to is None else x.to(to) for x, to in zip(drawn, dtypes, strict=True)]
        exact = [None if x is None else x.double().clone().requires_grad_() for x in given]
        given = [None if x is None else x.to(device).requires_grad_() for x in given]
        want, got = kernel.naive(*exact), kernel.run(*given)
        weights = [torch.randn(x.shape, generator=random, dtype=x.dtype) for x in want]
        for results in (want, got):
            torch.autograd.backward(results, [w.to(y) for w, y in zip(weights, results, strict=True)])
    if any(x is not None and x.grad is None for x in (*given, *exact)):
        raise ValueError("an input got no gradient")
    gradients = [(x.grad, y.grad) for x, y in zip(given, exact, strict=True) if x is not None and y is not None]
    output, state = (_error(x, y) for x, y in zip(got, want, strict=True))
    return {"output": output, "state": state, "gradients": max(_error(x, y) for x, y in gradients)}


def _error(x: Any, y: Any) -> float:
    error = float((x.detach().cpu().double() - y.detach()).norm() / y.detach().norm())
    return float("inf") if error != error else error


def kernels() -> list[Official]:
    """All official kernels."""
    return [kernel for op in OPS for kernel in import_module(f"zoo.ops.{op}.official").KERNELS]


def report() -> list[tuple[str, str, str]]:
    """Optional code for (op, form, what becomes of it here), for `zoobench doctor`."""
    rows = [(kernel.op, kernel.form, status(kernel)) for kernel in kernels()]
    rows.append(("attention", "torch scaled_dot_product_attention", "part of torch"))
    if not forms.available():
        off = str(forms.failures[0]) if forms.failures else "turned off by ZOOBENCH_COMPILED=0"
        loops = off if installed("numba") else "not installed; pip install numba"
        return [*rows, ("recurrences", "loops compiled by numba", loops)]
    dtypes = ("bf16", torch.bfloat16), ("fp32", torch.float32)
    backends = [(name, forms.matmul_backend(dtype)) for name, dtype in dtypes]
    products = ", ".join(f"{name} on {backend}" for name, backend in backends if backend)
    rows.append(("recurrences", "loops compiled by numba", "used on the CPU"))
    return [*rows, ("attention, recurrences", "products in such loops", products or "this CPU has no fast ones")]


def status(kernel: Official) -> str:
    """What becomes of a kernel here, in words."""
    if not torch.cuda.is_available():
        return "no GPU"
    if not installed(kernel.package):
        return f"not installed; {kernel.install}"
    if os.environ.get("ZOOBENCH_OFFICIAL", "1") == "0":
        return "turned off by ZOOBENCH_OFFICIAL=0"
    reasons = [reason for name, reason in refused.items() if name.startswith(f"{kernel.op} by {kernel.form} ")]
    return f"refused: {reasons[0]}" if reasons else "used on CUDA where equal"
