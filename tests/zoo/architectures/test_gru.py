"""The GRU against its equations in a loop, with gradients; its initial weights."""

import torch
from torch import nn

from zoo.architectures.gru import GRU
from zoo.contract import LayerContext

B, T, D = 3, 7, 5


def build():
    torch.manual_seed(0)
    mixer = GRU(LayerContext(width=D, length=T)).double()
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return mixer, torch.randn(B, T, D, dtype=torch.float64), torch.randn(B, D, dtype=torch.float64)


def by_hand(mixer, x, h):
    """Gates in the order r, z, n; n sees the reset state after its product."""
    own = mixer.gru
    outputs = []
    for t in range(x.shape[1]):
        r, z, n = (x[:, t] @ own.weight_ih_l0.T + own.bias_ih_l0).chunk(3, -1)
        ur, uz, un = (h @ own.weight_hh_l0.T + own.bias_hh_l0).chunk(3, -1)
        z = torch.sigmoid(z + uz)
        h = (1 - z) * torch.tanh(n + torch.sigmoid(r + ur) * un) + z * h
        outputs.append(h)
    return torch.stack(outputs, dim=1), h


def test_equals_its_equations():
    mixer, x, h = build()
    y, state = mixer(x, state={"h": h})
    wanted, last = by_hand(mixer, x, h)
    torch.testing.assert_close((y, state["h"]), (wanted, last))
    torch.testing.assert_close(mixer(x)[0], by_hand(mixer, x, torch.zeros_like(h))[0])
    own = list(mixer.parameters())
    torch.testing.assert_close(torch.autograd.grad(y.sin().sum(), own), torch.autograd.grad(wanted.sin().sum(), own))


def test_initial_weights():
    mixer = GRU(LayerContext(width=32, length=T))
    mixer.reset_parameters(layer=0, depth=1)
    own = dict(mixer.gru.named_parameters())
    for gate in own["weight_hh_l0"].detach().split(32):
        torch.testing.assert_close(gate @ gate.T, torch.eye(32), rtol=0, atol=1e-5)
    assert not own["bias_ih_l0"].any()
    assert not own["bias_hh_l0"].any()
    assert {name for name, hint in mixer.param_overrides().items() if hint.decay} == {
        "gru.weight_ih_l0",
        "gru.weight_hh_l0",
    }
