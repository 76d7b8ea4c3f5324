"""S4D: the spectra it starts with."""

import math

import pytest
import torch

from zoo.architectures.s4d import S4D
from zoo.contract import LayerContext


@pytest.mark.parametrize("init", ["lin", "inv", "legs", "real"])
def test_initialisation(init):
    mixer = S4D(LayerContext(width=256, length=21), d_state=16, init=init)
    mixer.reset_parameters(layer=0, depth=1)
    n = torch.arange(8)
    re = {"real": -(n + 1.0)}.get(init, torch.full((8,), -0.5))
    torch.testing.assert_close(-mixer.log_A_real.exp().detach(), re.expand(256, 8))
    if init != "legs":
        im = {"lin": math.pi * n, "inv": 16 / math.pi * (16 / (2 * n + 1) - 1), "real": 0.0 * n}[init]
        torch.testing.assert_close(mixer.A_imag.detach(), im.expand(256, 8))
    dt = mixer.log_dt.exp()
    assert 1e-3 <= dt.min() < 2e-3
    assert 5e-2 < dt.max() <= 1e-1
    assert mixer.C.var().item() == pytest.approx(0.5, rel=0.1)
