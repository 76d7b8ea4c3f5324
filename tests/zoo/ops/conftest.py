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


def differentiated(form, *inputs):
    """Outputs, and gradients of a weighed sum of them."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    outputs = form(*leaves)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    torch.manual_seed(1)
    total = sum((y.double() * torch.randn(y.shape, dtype=torch.float64)).sum() for y in outputs)
    return *(y.detach() for y in outputs), *torch.autograd.grad(total, leaves)


def assert_same(fast, naive, *inputs, tolerance=1e-10):
    """Outputs and gradients of both forms, on the same inputs in float64."""
    got, want = differentiated(fast, *inputs), differentiated(naive, *inputs)
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
