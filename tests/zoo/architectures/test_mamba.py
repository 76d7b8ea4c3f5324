"""Mamba, Mamba-2 and Mamba-3: the values that A, Δ and heads start with."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.mamba import Mamba
from zoo.architectures.mamba2 import Mamba2
from zoo.architectures.mamba3 import Mamba3
from zoo.contract import LayerContext


def test_mamba_starts():
    torch.manual_seed(0)
    mixer = Mamba(LayerContext(width=64, length=13, depth=4), d_state=5, bias=True)
    torch.testing.assert_close(-mixer.A_log.exp().detach(), -torch.arange(1.0, 6).expand(128, 5))
    delta = F.softplus(mixer.dt_proj.bias)
    assert 1e-3 <= delta.min() < 2e-3
    assert 5e-2 < delta.max() <= 0.1001
    assert mixer.x_proj.out_features == 4 + 10  # dt_rank = ⌈64 / 16⌉
    constant = Mamba(LayerContext(width=64, length=13), dt_init="constant", dt_scale=2.0, dt_min=1e-6, dt_max=1e-5)
    assert (constant.dt_proj.weight == 1).all()
    torch.testing.assert_close(F.softplus(constant.dt_proj.bias), torch.full((128,), 1e-4))  # the floor


def test_mamba2_starts():
    torch.manual_seed(0)
    mixer = Mamba2(LayerContext(width=256, length=13, depth=4), d_state=4, headdim=2, conv_init=0.01)
    A, delta = mixer.A_log.exp(), F.softplus(mixer.dt_bias)
    assert 1 <= A.min() < 1.5
    assert 15 < A.max() <= 16
    assert 1e-3 <= delta.min() < 2e-3
    assert 5e-2 < delta.max() <= 0.1001


def test_mamba3_starts():
    torch.manual_seed(0)
    delta = F.softplus(Mamba3(LayerContext(width=256, length=13), headdim=2).dt_bias)
    assert 1e-3 <= delta.min() < 2e-3
    assert 5e-2 < delta.max() <= 0.1001


@pytest.mark.parametrize(("width", "heads"), [(128, 4), (8, 1), (24, 1), (80, 2), (81, 3)])
def test_default_heads_fit_the_width(width, heads):
    """Twice the width in heads as near 64 as can be: 48, 80 and 54 wide, say, and never 2."""
    assert len(Mamba2(LayerContext(width=width, length=13)).A_log) == heads
    assert len(Mamba3(LayerContext(width=width, length=13)).D) == heads
