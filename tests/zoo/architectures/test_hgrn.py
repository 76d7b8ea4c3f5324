"""HGRN and HGRN2: the bound of the forget gate, by layer."""

import pytest
import torch

from zoo.architectures.hgrn import HGRN
from zoo.architectures.hgrn2 import HGRN2
from zoo.contract import LayerContext
from zoo.layers.lower_bound import forget_gate

DEPTH, D = 5, 8


@pytest.mark.parametrize("kind", [HGRN, HGRN2])
def test_bounds_start_evenly_spaced_over_the_layers(kind):
    """The lowest layer has none; in layer l no gate is below l / depth."""
    x = torch.linspace(-40, 40, 9).double()[:, None].expand(9, D)
    for layer in range(DEPTH):
        mixer = kind(LayerContext(width=D, length=9, layer=layer, depth=DEPTH))
        mixer.reset_parameters(layer=layer, depth=DEPTH)
        assert (mixer.lower_bounds is None) == (layer == 0)
        log_f, rest = forget_gate(x, mixer.lower_bounds, layer)
        torch.testing.assert_close(log_f.exp(), layer / DEPTH + (1 - layer / DEPTH) * x.sigmoid())
        torch.testing.assert_close(log_f.exp() + rest, torch.ones_like(rest))
    assert kind(LayerContext(width=D, length=9, layer=1, depth=2), use_lower_bound=False).lower_bounds is None


def test_bounds_grow_with_the_layer():
    """They are cumulative sums of the softmax over layers but for its first, as in the official model."""
    torch.manual_seed(0)
    gamma, x = 3 * torch.randn(DEPTH, D).double(), torch.full((D,), -1e3).double()
    p = gamma.softmax(0)
    for layer in range(1, DEPTH):
        log_f, _ = forget_gate(x, gamma, layer)
        torch.testing.assert_close(log_f.exp(), (p.cumsum(0) - p[0])[layer])


def test_a_gate_that_is_almost_open_or_shut_keeps_its_digits():
    """In float32, where 1 − f would be 0 and ln f −∞; gradients are numbers."""
    gamma = torch.tensor([[0.0, -90.0], [0.0, 90.0]], requires_grad=True)
    for x, layer in ((60.0, 1), (-60.0, 1), (60.0, 0), (-200.0, 0)):
        x = torch.full((2,), x, requires_grad=True)
        log_f, rest = forget_gate(x, gamma if layer else None, layer)
        exact_log, exact_rest = forget_gate(x.double(), gamma.double() if layer else None, layer)
        torch.testing.assert_close(log_f, exact_log.float(), rtol=1e-5, atol=0)
        torch.testing.assert_close(rest, exact_rest.float(), rtol=1e-5, atol=0)
        assert all(g.isfinite().all() for g in torch.autograd.grad((log_f + rest).sum(), [x, gamma][: 1 + layer]))
