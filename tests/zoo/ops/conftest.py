"""Ops are tested on few numbers, which compiled passes would leave to torch."""

from dataclasses import replace

import pytest
import torch

from zoo.ops import forms


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Compiled passes serve any number of numbers."""
    monkeypatch.setattr(forms, "CPU", {op: replace(form, least=0) for op, form in forms.CPU.items()})


@pytest.fixture(params=["compiled", "torch"])
def form(request, monkeypatch):
    """Both forms of an op: its loop, where there are loops, and what runs elsewhere."""
    if request.param == "torch":
        monkeypatch.setattr(forms, "available", lambda: False)
    elif not forms.available():
        pytest.skip("needs compiled loops")
    return request.param


def padding(T):
    """A mask of rows of full, half and no length."""
    return torch.arange(T) < torch.tensor([T, T // 2, 0])[:, None]


def differentiated(form, *inputs):
    """Outputs, and gradients of a weighed sum of them for all inputs that are not None."""
    leaves = [x if x is None else x.detach().requires_grad_() for x in inputs]
    outputs = form(*leaves)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    torch.manual_seed(1)
    total = sum((y.double() * torch.randn(y.shape, dtype=torch.float64)).sum() for y in outputs)
    given = [x for x in leaves if x is not None]
    return *(y.detach() for y in outputs), *torch.autograd.grad(total, given, materialize_grads=True)


def assert_same(fast, naive, *inputs, tolerance=1e-10):
    """Outputs and gradients of both forms, on the same inputs in float64."""
    got, want = differentiated(fast, *inputs), differentiated(naive, *inputs)
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def assert_near(got, want, limit):
    """The error of each tensor is at most `limit`, relative to its norm where that is more than 1e-5."""
    for i, (ours, true) in enumerate(zip(got, want, strict=True)):
        error, norm = float((ours.to(true.dtype) - true).norm()), float(true.norm())
        assert error <= limit * (norm if norm > 1e-5 else 1), f"number {i} of outputs and gradients: {error}"


def assert_near_float64(fast, naive, *inputs, limit):
    """Outputs and gradients of a form, beside what the naive form has on the same numbers in float64."""
    exact = [x if x is None else x.to(torch.promote_types(x.dtype, torch.float64)) for x in inputs]
    assert_near(differentiated(fast, *inputs), differentiated(naive, *exact), limit)
