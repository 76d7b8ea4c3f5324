"""What ops have in common: they tell which form ran, compute in float32 whatever autocast says, and NaN and ±∞ come out
of every form as the naive form has them: no form turns them into numbers."""

import pkgutil
import random
from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import zoo.ops
from zoo.ops import forms
from zoo.ops.kernel_log import log_kernel, record_kernels
from zoo.ops.short_convolution import short_convolution
from zoo.ops.slstm import slstm
from zoo.ops.wkv4 import wkv

from .cases import CASES, Case, T
from .conftest import padding


@pytest.mark.parametrize("name", CASES)
def test_an_op_reports_its_form(form, name):
    case = CASES[name]
    with torch.no_grad(), record_kernels() as kernels:
        case.fast(*(x.to(torch.complex64 if x.is_complex() else torch.float32) for x in case.inputs))
    assert case.op in kernels
    if form == "torch":
        assert all("loop" not in ran and " on " not in ran for ran in kernels.values())
    elif (listed := forms.CPU.get(case.op)) and not listed.matmul:
        assert kernels[case.op] == listed.name


def test_every_op_is_here():
    own = {case.op for case in CASES.values()}
    ops = {module.name for module in pkgutil.iter_modules(zoo.ops.__path__) if module.ispkg}
    assert ops - own == {"cpu", "elementwise", "norms"}  # the functions of the last two report themselves


def test_several_forms_of_an_op_stand_in_order():
    with record_kernels() as outer, record_kernels() as kernels:
        for form in ("torch", "compiled loop", "torch"):
            log_kernel("scan", form)
    assert kernels == outer == {"scan": "torch; compiled loop"}
    with record_kernels(kernels):
        log_kernel("scan", "another")
    log_kernel("scan", "unheard")
    assert kernels == {"scan": "torch; compiled loop; another"}


FULL = (
    *("cauchy", "Fourier", "h3", "long convolution", "selective scan", "gated selective scan", "short convolution"),
    *("sLSTM", "Vandermonde kernel", "Vandermonde state", "WKV"),
)


@pytest.mark.parametrize("name", FULL)
def test_all_is_computed_in_float32(form, name):
    """Inputs hold numbers of bfloat16, so that only the dtype of the outputs may differ."""
    full, half = ([_cast(x, dtype) for x in CASES[name].inputs] for dtype in (torch.float32, torch.bfloat16))
    want = _flat(CASES[name].fast(*full))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for got in (_flat(CASES[name].fast(*given)) for given in (full, half)):
            for x, y in zip(got, want, strict=True):
                torch.testing.assert_close(x, y.to(x.dtype), rtol=0, atol=0)


MASK = padding(9)
OPS = {
    "wkv": lambda x, w: _flat(wkv(-w.exp(), w, x, x, None, MASK)),
    "slstm": lambda x, w: _flat(slstm(*(x.unsqueeze(0),) * 4, w.expand(1, 4, 5, 5), w.expand(1, 4, 5), None, MASK)),
    "short convolution": lambda x, w: [short_convolution(x, w.view(5, 1).expand(5, 3), mask=MASK)],
}


@pytest.mark.parametrize("op", OPS)
def test_nan_in_padding_leaves_no_trace(form, op):
    """In no valid output, no state and no gradient of theirs."""
    torch.manual_seed(0)
    x, w, found = torch.randn(3, 9, 5, requires_grad=True), torch.randn(5, requires_grad=True), []
    for junk in (0, float("nan")):
        y, *state = OPS[op](x.masked_fill(~MASK[..., None], junk), w)
        found.append([y[MASK], *state, *torch.autograd.grad(y[MASK].sum() + sum(s.sum() for s in state), (x, w))])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


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
    loops = [listed for op, listed in forms.CPU.items() if op.partition(",")[0] == case.op]
    if compiled and not any(forms.matmul_backend(dtype) or not listed.matmul for listed in loops if forms.available()):
        pytest.skip("it has no compiled form here")
    if not compiled:
        monkeypatch.setattr(forms, "available", lambda: False)
    faults = []
    for plants in trials(name):
        want, slopes = truth(name, plants)
        got, own = run(case.fast, [_cast(x, dtype) for x in _planted(case, plants)])
        pairs = enumerate(zip(got, want, strict=True))
        found = [fault(*pair, case.mixed, n == 0, TOLERANCE[dtype]) for n, pair in pairs]
        pairs = [(x, y) for x, y in zip(slopes, own, strict=True) if x is not None and y is not None]
        if case.mixed is None:
            same = all(torch.equal(x.isfinite(), y.isfinite()) for x, y in pairs)
            found.append(None if same else "gradients are not finite at other places")
        else:
            lost = any((x.isnan() & y.isfinite()).any() for x, y in pairs)
            found.append("a gradient that is NaN comes out as a number" if lost else None)
        faults += [f"{' and '.join(map(str, plants))}: {what}" for what in found if what]
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


class Plant(NamedTuple):
    number: float
    input: int
    at: tuple[int, ...]


@cache
def trials(name: str) -> list[tuple[Plant, ...]]:
    """What to plant where: in every input NaN once and once an infinity, of the sign that all its numbers have. They go
    into the two rows of a batch, or heads, of which none reads the other; where there are none, one after another.
    """
    draw, found = random.Random(name), []
    for i, x in enumerate(CASES[name].inputs):
        signs = [sign for sign in (1, -1) if (sign * x.real >= 0).all()] or [draw.choice((1, -1))]
        plants = []
        for row, number in enumerate((float("nan"), signs[0] * float("inf"))):
            at = [int(n) for n in torch.unravel_index(torch.tensor(draw.randrange(x.numel())), x.shape)]
            if 2 in x.shape:
                at[x.shape.index(2)] = row
            plants.append(Plant(number, i, tuple(at)))
        found += [tuple(plants)] if 2 in x.shape else [(plant,) for plant in plants]
    return found


@cache
def truth(name: str, plants: tuple[Plant, ...]) -> tuple[list[Tensor], list[Tensor | None]]:
    """What the naive form has, in float64."""
    return run(CASES[name].naive, _planted(CASES[name], plants))


def run(form, inputs) -> tuple[list[Tensor], list[Tensor | None]]:
    """Outputs, and gradients of a weighted sum of them; None by an input that is a constant to the form."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    outputs = _flat(form(*leaves))
    torch.manual_seed(0)
    weights = [torch.randn(y.shape, dtype=torch.float64).to(y.dtype) for y in outputs]
    pairs = [(y, w) for y, w in zip(outputs, weights, strict=True) if y.requires_grad]
    gradients = torch.autograd.grad([y for y, _ in pairs], leaves, [w for _, w in pairs], allow_unused=True)
    return [y.detach() for y in outputs], list(gradients)


def _planted(case: Case, plants: tuple[Plant, ...]) -> list[Tensor]:
    given = [x.clone() for x in case.inputs]
    for plant in plants:
        x = given[plant.input]
        (x.real if x.is_complex() else x)[plant.at] = plant.number
    return given


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """In half precision only what varies with time is that; weights and states are float32."""
    dtype = torch.float32 if dtype is torch.bfloat16 and (T not in x.shape or x.is_complex()) else dtype
    return x.to(dtype.to_complex() if x.is_complex() else dtype)


def _flat(outputs) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    return [x for part in (outputs.values() if isinstance(outputs, dict) else outputs) for x in _flat(part)]
