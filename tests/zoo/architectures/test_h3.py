"""H3: initial values, and one function whether time or channels are last."""

import math
from dataclasses import replace

import pytest
import torch

from zoo.architectures.h3 import H3
from zoo.contract import LayerContext
from zoo.ops import forms

from .mixers import shaken, vectors


@pytest.mark.parametrize("masked", [False, True])
def test_by_channel_or_by_step(monkeypatch, masked):
    """With time last it is the same function, in outputs and gradients."""
    B, T, D = 3, 21, 6
    mixer = shaken(H3(LayerContext(width=D, length=T), d_state=8, dt_min=0.01, dt_max=0.5))
    mask = torch.arange(T) < torch.tensor([[T], [4], [0]]) if masked else None
    seen = torch.ones(B, T, dtype=torch.bool) if mask is None else mask

    def results():
        x = vectors(B, T, D).requires_grad_()
        y = mixer(x, mask=mask)[0][seen]
        return y, *torch.autograd.grad(y.square().sum(), [x, *mixer.parameters()])

    by_step = results()
    monkeypatch.setattr(forms, "CPU", {op: replace(form, least=0) for op, form in forms.CPU.items()})
    torch.testing.assert_close(results(), by_step)


def test_initialisation():
    mixer = H3(LayerContext(width=256, length=21), d_state=16)
    shift, diagonal = mixer.ssm_k_kernel["kernel"], mixer.kernel["kernel"]
    torch.testing.assert_close(shift.B.detach(), torch.eye(1, 16).expand(256, 16))
    assert 0.24 < shift.C.abs().max() <= 0.25
    torch.testing.assert_close(diagonal.A_imag.detach(), math.pi * torch.arange(8.0).expand(256, 8))
    torch.testing.assert_close(diagonal.inv_A_real.detach(), torch.full((256, 8), math.log(0.5)))
    torch.testing.assert_close(diagonal.B.detach(), torch.tensor([1.0, 0.0]).expand(256, 8, 2))
    assert diagonal.C.var().item() == pytest.approx(0.5, rel=0.1)
    dt = diagonal.log_dt.exp()
    assert 1e-3 <= dt.min() < 2e-3
    assert 5e-2 < dt.max() <= 1e-1
