"""sLSTM: extreme gates, the choices of initial values (the defaults: test_xlstm.py)."""

import pytest
import torch

from zoo.architectures.slstm import SLSTM
from zoo.contract import LayerContext

from .mixers import drawn, start, vectors

B, T, D = 3, 11, 6


@pytest.mark.parametrize("size", [300.0, -300.0])
def test_extreme_gates_stay_finite(size):
    """In float32, where e^89 is infinite."""
    mixer, x = drawn(SLSTM(LayerContext(width=D, length=T), heads=2), 1.0).float(), vectors(B, T, D).float()
    mixer.slstm_cell._bias_.data[: 2 * D] += size * torch.randn(2 * D).sign()
    y, state = mixer(x, state=start(mixer, x))
    y.square().sum().backward()
    assert bool((state["n"] >= 1).all())
    assert all(bool(value.isfinite().all()) for value in (y, *state.values(), *(p.grad for p in mixer.parameters())))


@pytest.mark.parametrize(("layer", "power"), [(0, 0.3), (2, 0.95), (4, 1.6)])
def test_forget_biases_follow_a_power_of_the_channel(layer, power):
    mixer = SLSTM(LayerContext(width=64, length=T), heads=4)
    mixer.reset_parameters(layer=layer, depth=5)
    _, f, _, _ = mixer.slstm_cell._bias_.detach().view(4, 4, 16)
    torch.testing.assert_close(f, (5 - 12 * (torch.arange(16) / 15) ** power).expand(4, 16))


def test_other_initialisations():
    def cell(width=64, **options):
        return SLSTM(LayerContext(width=width, length=T), **options).slstm_cell

    small = cell(bias_init="small_init", recurrent_weight_init="standard")
    torch.testing.assert_close(small._bias_.detach().view(4, 4, 16)[1, 2], torch.linspace(3, 6, 16))
    assert 0.1 < small._recurrent_kernel_.abs().max() <= 0.125
    assert not cell(bias_init="zeros")._bias_.any()
    assert 0.1 < cell(bias_init="standard")._bias_.abs().max() <= 0.125
    assert bool(cell(width=4)._bias_.isfinite().all())  # one unit per head
