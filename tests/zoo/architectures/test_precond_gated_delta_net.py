"""Preconditioned Gated DeltaNet: how the factor of a channel follows what the channel has held."""

import pytest
import torch

from zoo.architectures.gated_delta_net import GatedDeltaNet
from zoo.architectures.precond_gated_delta_net import PrecondGatedDeltaNet
from zoo.contract import LayerContext

from .mixers import drawn, vectors

CONTEXT = LayerContext(width=16, length=19)


def test_the_factor_falls_from_z_to_one_over_z():
    mixer = drawn(PrecondGatedDeltaNet(CONTEXT, squash_x=1.5))
    mixer.log_atk_scale.data.fill_(-0.2)
    A = torch.logspace(-5, 5, 101, dtype=torch.float64)[:, None, None]
    m = mixer._factor(A)[:, 0, 0]
    assert bool((m.diff() < 0).all())
    assert 1.4 < m[0] < 1.5
    assert 1 / 1.5 < m[-1] < 1 / 1.4
    center = torch.full((1, 1, 1), -0.2).double().exp()
    assert mixer._factor(center)[0, 0, 0].item() == pytest.approx(1, abs=1e-6)


def test_a_factor_of_one_is_gated_delta_net():
    """Where z is all but 1."""
    mixer, x = drawn(PrecondGatedDeltaNet(CONTEXT, squash_x=1 + 1e-12)), vectors(2, 19, 16)
    plain = GatedDeltaNet(CONTEXT).double()
    plain.load_state_dict({name: p for name, p in mixer.state_dict().items() if "atk" not in name})
    torch.testing.assert_close(mixer(x)[0], plain(x)[0])
