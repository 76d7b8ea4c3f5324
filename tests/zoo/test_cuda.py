"""Models on a GPU."""

import pytest
import torch

from zoo.checks.subject import Subject, example, gradients, loss
from zoo.ops import forms


def computed(model, batch, device):
    model = model.to(device)
    logits = model(batch.tensors(device))
    found = [logits.detach(), *gradients(model, loss(logits, batch.tensors(device)))]
    return [x.cpu() for x in found]


@pytest.mark.cuda
def test_a_model_computes_what_it_does_on_a_cpu(architecture, monkeypatch):
    """In float64, as by torch's ops: logits and gradients, of every stack there is."""
    monkeypatch.setattr(forms, "available", lambda: False)
    subject = Subject(architecture)
    for role in subject.stacks:
        model, batch = subject.random(role), example(role)
        for x, y in zip(*(computed(model, batch, device) for device in ("cuda", "cpu")), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-8)
