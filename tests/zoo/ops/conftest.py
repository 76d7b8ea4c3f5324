"""Ops are tested on few numbers, which compiled passes would leave to torch."""

from dataclasses import replace

import pytest
import torch

from zoo.ops import forms


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Compiled passes serve any number of numbers."""
    monkeypatch.setattr(forms, "FEW", 0)
    monkeypatch.setattr(forms, "CPU", {op: replace(form, least=0) for op, form in forms.CPU.items()})


def differentiated(form, *inputs):
    """Outputs, and gradients of a weighed sum of them."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    outputs = form(*leaves)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    torch.manual_seed(1)
    total = sum((y.double() * torch.randn(y.shape, dtype=torch.float64)).sum() for y in outputs)
    return *(y.detach() for y in outputs), *torch.autograd.grad(total, leaves)
