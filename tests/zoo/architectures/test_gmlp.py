"""gMLP: the equations, initial values, errors."""

import pytest
import torch

from zoo.architectures.gmlp import SpatialGate
from zoo.contract import LayerContext

B, T, D = 2, 7, 6


def build(**options):
    torch.manual_seed(0)
    mixer = SpatialGate(LayerContext(width=D, length=T, causal=False), **{"expand": 2, **options}).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def test_equals_the_equations():
    """Equations 1 to 4, the spatial map one output step at a time."""
    mixer, x = build()
    z = torch.nn.functional.gelu(x @ mixer.fc1.weight.T + mixer.fc1.bias)
    first, second = z[..., :D], mixer.gate.norm(z[..., D:])
    W, b = mixer.gate.proj.weight, mixer.gate.proj.bias
    gate = torch.stack([sum(W[t, s] * second[:, s] for s in range(T)) + b[t] for t in range(T)], dim=1)
    want = (first * gate) @ mixer.fc2.weight.T + mixer.fc2.bias
    torch.testing.assert_close(mixer(x)[0], want, rtol=1e-12, atol=1e-12)


def test_at_first_it_mixes_nothing():
    mixer, x = build()
    mixer.reset_parameters(layer=0, depth=4)
    assert mixer.gate.proj.weight.abs().max() < 1e-5
    other = x.clone()
    other[:, 0] = 100
    torch.testing.assert_close(mixer(other)[0][:, 1:], mixer(x)[0][:, 1:], rtol=1e-4, atol=1e-4)
    assert mixer.fc2.weight.std().item() == pytest.approx((2 * 4 * D) ** -0.5, rel=0.3)


@pytest.mark.parametrize("expand", [0.1, 1.5])
def test_hidden_features_must_split_in_two(expand):
    with pytest.raises(ValueError, match="even number"):
        build(expand=expand)


def test_other_lengths_are_refused():
    mixer, x = build()
    with pytest.raises(ValueError, match=f"exactly {T}"):
        mixer(x[:, 1:])
