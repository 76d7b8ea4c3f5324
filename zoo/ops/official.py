"""Official CUDA kernels in the place of our own forms.

An official kernel stands in an op's `official.py` and
serves tensors on a GPU once its outputs and gradients have equalled those of the op's naive form: see `trusted`.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

from zoo.ops import flops, forms
from zoo.ops.kernel_log import log_kernel

refused: dict[str, str] = {}
"""Official kernels that did not pass their check, by name and inputs, and why."""

OPS = ("selective_scan", "linear_attention", "delta_rule")
"""Ops with an `official.py`, whose `KERNELS` are its official kernels."""

LOWEST = -100.0
"""For log decays: e^−100 is 0 beside any float32, and sums of 64 of them still have digits, unlike those of −inf."""


@dataclass(frozen=True)
class Official:
    """A kernel of another package in our signature: it computes what `naive` does, from the same arguments.

    `draw(random, T, *sizes)` makes all of these arguments in float64, for two rows of T steps: those that are not
    given, it is checked without. It is checked at several `lengths` where it goes other ways for longer rows.
    """

    op: str
    form: str
    package: str
    install: str
    run: Callable[..., tuple[Tensor, Tensor]]
    naive: Callable[..., tuple[Tensor, Tensor]]
    draw: Callable[..., list[Tensor]]
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    lengths: tuple[int, ...] = (72,)


def serve(official: Official, dtype: torch.dtype, sizes: tuple[int, ...], *inputs: Tensor | None) -> tuple | None:
    """Output and state as `official` computes them from `inputs`, or None where our own form has to: see `trusted`.

    While FLOPs are counted it is ours, whose matrix products torch's counter sees: a kernel is not to change the count.
    """
    if not trusted(official, dtype, sizes, *inputs) or flops.counting():
        return None
    log_kernel(official.op, official.form)
    return official.run(*inputs)


def trusted(official: Official, dtype: torch.dtype, sizes: tuple[int, ...], *inputs: Tensor | None) -> bool:
    """Whether `official` may compute on these: all on one GPU, its package here, and equal to the naive form.

    Equality is checked at first use for each of `dtype` (what its matrix products run in), `sizes` (of features, for
    `draw`), dtypes of inputs and which of them are given. An official kernel that cannot be checked or is not equal
    stands in `refused`, with a warning. None serves under `ZOOBENCH_OFFICIAL=0`, nor where torch is told to be
    deterministic: some add up gradients in any order.
    """
    there = [x for x in inputs if x is not None]
    if not all(on_gpu(x) for x in there) or dtype not in official.dtypes or not installed(official.package):
        return False
    if os.environ.get("ZOOBENCH_OFFICIAL", "1") == "0" or torch.are_deterministic_algorithms_enabled():
        return False
    dtypes = tuple(None if x is None else x.dtype for x in inputs)
    return _error(official, sizes, dtypes, there[0].device, dtype) <= tolerance(dtype)


def on_gpu(x: Tensor) -> bool:
    """Whether official kernels can reach `x`."""
    return x.is_cuda


@functools.cache
def installed(package: str) -> bool:
    """Whether `package` can be imported, which it is not for this."""
    return find_spec(package) is not None


def tolerance(dtype: torch.dtype) -> float:
    """The largest relative error, of any output or gradient, with which a kernel counts as equal.

    Some five roundings of bfloat16; as many of TF32 for float32 where torch's own matrix products may use that.
    """
    if dtype is torch.bfloat16:
        return 2e-2
    return 1e-4 if torch.get_float32_matmul_precision() == "highest" else 5e-3


_errors: dict[tuple, float] = {}


def _error(
    official: Official,
    sizes: tuple[int, ...],
    dtypes: tuple[torch.dtype | None, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> float:
    """The largest relative error in the check, made once; infinite where there is an exception."""
    key = (official.form, sizes, dtypes, device, dtype)
    if key not in _errors:
        try:
            _errors[key] = max(_compare(official, sizes, dtypes, device, T) for T in official.lengths)
            reason = f"a relative error of {_errors[key]:.1g} beside the naive form, more than {tolerance(dtype):.1g}"
        except Exception as error:  # whatever a kernel of another package may raise
            _errors[key] = float("inf")
            reason = f"{type(error).__name__}: {error}"
        if not _errors[key] <= tolerance(dtype):
            name = f"{official.op} by {official.form} ({str(dtype).removeprefix('torch.')}, sizes {sizes})"
            refused[name] = reason
            warnings.warn(f"not used: {name}: {reason}. zoobench's own form runs instead.", stacklevel=5)
    return _errors[key]


def _compare(
    official: Official,
    sizes: tuple[int, ...],
    dtypes: tuple[torch.dtype | None, ...],
    device: torch.device,
    T: int,
) -> float:
    """‖official − naive‖ / ‖naive‖, the largest among output, state and gradients. The naive form runs in float64."""
    with torch.inference_mode(False), torch.enable_grad():
        random = torch.Generator().manual_seed(0)
        drawn = official.draw(random, T, *sizes)
        given = [None if to is None else x.to(to) for x, to in zip(drawn, dtypes, strict=True)]
        exact = [None if x is None else x.double().clone().requires_grad_() for x in given]
        given = [None if x is None else x.to(device).requires_grad_() for x in given]
        want, got = official.naive(*exact), official.run(*given)
        weights = [torch.randn(x.shape, generator=random, dtype=x.dtype) for x in want]
        for results in (want, got):
            torch.autograd.backward(results, [w.to(y) for w, y in zip(weights, results, strict=True)])
    pairs = list(zip(got, want, strict=True))
    for x, y in zip(given, exact, strict=True):
        if x is not None and y is not None:
            if x.grad is None or y.grad is None:
                raise ValueError("an input got no gradient")
            pairs.append((x.grad, y.grad))
    errors = [float((x.detach().cpu().double() - y.detach()).norm() / y.detach().norm()) for x, y in pairs]
    return max(float("inf") if e != e else e for e in errors)


def report() -> list[tuple[str, str, str]]:
    """Optional code for (op, form, what becomes of it here), for `zoobench doctor`."""
    rows = []
    for official in (kernel for op in OPS for kernel in import_module(f"zoo.ops.{op}.official").KERNELS):
        reasons = [reason for name, reason in refused.items() if name.startswith(f"{official.op} by {official.form} ")]
        if not torch.cuda.is_available():
            status = "no GPU"
        elif not installed(official.package):
            status = f"not installed; pip install {official.install}"
        elif os.environ.get("ZOOBENCH_OFFICIAL", "1") == "0":
            status = "turned off by ZOOBENCH_OFFICIAL=0"
        else:
            status = f"refused: {reasons[0]}" if reasons else "used on CUDA where equal"
        rows.append((official.op, official.form, status))
    rows.append(("attention", "torch scaled_dot_product_attention", "part of torch"))
    if forms.available():
        status = "used on the CPU"
    else:
        status = "turned off by ZOOBENCH_COMPILED=0" if installed("numba") else "not installed; pip install numba"
    rows.append(("recurrences", "loops compiled by numba", status))
    if forms.available():
        units = {
            name: forms.matmul_backend(dtype) for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32))
        }
        status = ", ".join(f"{name} on {unit}" for name, unit in units.items() if unit) or "this CPU has no fast ones"
    return [*rows, ("attention, recurrences", "products in such loops", status)]
