"""NaN and ±∞ come out of every form of every op as the naive form has them: no form turns them into numbers."""

import random
from functools import cache

import pytest
import torch
from torch import Tensor

from zoo.ops import forms

from .cases import CASES, Case, T

FORMS = {
    "torch, float32": (False, torch.float32),
    "torch, bfloat16": (False, torch.bfloat16),
    "compiled, float64": (True, torch.float64),
    "compiled, float32": (True, torch.float32),
    "compiled, bfloat16": (True, torch.bfloat16),
}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.1}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.naive])
def test_nonfinite_numbers_come_out_as_in_the_naive_form(monkeypatch, name, form):
    compiled, dtype = FORMS[form]
    case = CASES[name]
    if compiled and not (forms.available() and any(case.op == op.partition(",")[0] for op in forms.CPU)):
        pytest.skip("it has no compiled form here")
    if not compiled:
        monkeypatch.setattr(forms, "available", lambda: False)
    faults = []
    for (i, at), planted in trials(name):
        want, slopes = truth(name, i, at, planted)
        got, own = run(case.fast, [_cast(x, dtype) for x in _planted(case, i, at, planted)])
        pairs = enumerate(zip(got, want, strict=True))
        found = [fault(*pair, case.mixed, n == 0, TOLERANCE[dtype]) for n, pair in pairs]
        pairs = [(x, y) for x, y in zip(slopes, own, strict=True) if x is not None and y is not None]
        if case.mixed is None:
            same = all(torch.equal(x.isfinite(), y.isfinite()) for x, y in pairs)
            found.append(None if same else "gradients are not finite at other places")
        elif planted != planted:
            lost = any((x.isnan() & y.isfinite()).any() for x, y in pairs)
            found.append("a gradient that is NaN comes out as a number" if lost else None)
        where = torch.unravel_index(torch.tensor(at), case.inputs[i].shape)
        faults += [f"{planted} in input {i}, {[int(n) for n in where]}: {what}" for what in found if what]
    assert not faults, "\n".join(faults)


def fault(y: Tensor, exact: Tensor, mixed: int | None, first: bool, tolerance: float) -> str | None:
    """What is wrong with y, if numbers that are not finite do not stand where they should or others are not equal."""
    y = y.to(exact.dtype)
    gone, lost = ~exact.isfinite(), ~y.isfinite()
    if (gone & ~lost).any():
        return f"{exact[gone & ~lost][0]} comes out as {y[gone & ~lost][0]}"
    spread = lost & ~(gone.any(mixed, keepdim=True) if mixed is not None and first else gone)
    if spread.any():
        return f"it spreads to {spread.nonzero()[0].tolist()}, where the naive form is finite"
    if mixed is None and not torch.equal(y[gone].nan_to_num(7, 1, -1), exact[gone].nan_to_num(7, 1, -1)):
        return "NaN, ∞ and −∞ change places"
    error = (y - exact)[~lost].abs()
    if error.numel() and not error.max() <= tolerance * (1 + exact[~lost].abs().max()):
        return f"finite numbers are off by {error.max()}"
    return None


@cache
def trials(name: str) -> list[tuple[tuple[int, int], float]]:
    """Where to plant what: every input gets NaN once and once an infinity, of the sign that all its numbers have."""
    draw, found = random.Random(name), []
    for i, x in enumerate(CASES[name].inputs):
        signs = [sign for sign in (1, -1) if (sign * x.real >= 0).all()] or [draw.choice((1, -1))]
        for planted in (float("nan"), signs[0] * float("inf")):
            found.append(((i, draw.randrange(x.numel())), planted))
    return found


@cache
def truth(name: str, i: int, at: int, planted: float) -> tuple[list[Tensor], list[Tensor | None]]:
    """What the naive form has, in float64."""
    return run(CASES[name].naive, _planted(CASES[name], i, at, planted))


def run(form, inputs) -> tuple[list[Tensor], list[Tensor | None]]:
    """Outputs, and gradients of a weighted sum of them; None by an input that is a constant to the form."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    outputs = _flat(form(*leaves))
    torch.manual_seed(0)
    weights = [torch.randn(y.shape, dtype=torch.float64).to(y.dtype) for y in outputs]
    pairs = [(y, w) for y, w in zip(outputs, weights, strict=True) if y.requires_grad]
    gradients = torch.autograd.grad([y for y, _ in pairs], leaves, [w for _, w in pairs], allow_unused=True)
    return [y.detach() for y in outputs], list(gradients)


def _planted(case: Case, i: int, at: int, planted: float) -> list[Tensor]:
    given = [x.clone() for x in case.inputs]
    x = given[i]
    (x.real if x.is_complex() else x).reshape(-1)[at] = planted  # a view of either
    return given


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """In half precision only what varies with time is that; weights and states are float32."""
    dtype = torch.float32 if dtype is torch.bfloat16 and (T not in x.shape or x.is_complex()) else dtype
    return x.to(dtype.to_complex() if x.is_complex() else dtype)


def _flat(outputs) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    return [x for part in (outputs.values() if isinstance(outputs, dict) else outputs) for x in _flat(part)]
