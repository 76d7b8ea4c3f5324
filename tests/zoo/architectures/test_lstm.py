"""The LSTM against its equations in a loop, with gradients; its initial weights."""

import torch
from torch import nn

from zoo.architectures.lstm import LSTM
from zoo.contract import LayerContext

B, T, D = 3, 7, 5


def build():
    torch.manual_seed(0)
    mixer = LSTM(LayerContext(width=D, length=T)).double()
    for parameter in mixer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return mixer


def inputs(steps=T, seed=1):
    return torch.randn(B, steps, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(mixer, x, h, c):
    W = mixer.lstm
    outputs = []
    for t in range(x.shape[1]):
        gates = x[:, t] @ W.weight_ih_l0.T + W.bias_ih_l0 + h @ W.weight_hh_l0.T + W.bias_hh_l0
        i, f, g, o = gates.chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, dim=1), {"h": h, "c": c}


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_equals_its_equations_with_gradients():
    mixer, x = build(), inputs().requires_grad_()
    h, c = inputs(2, seed=2).requires_grad_().unbind(1)
    y, state = mixer(x, state={"h": h, "c": c})
    wanted, last = by_hand(mixer, x, h, c)
    close(y, wanted)
    close(state, last)
    weight, variables = inputs(seed=3), [x, h, c, *mixer.parameters()]
    found = torch.autograd.grad((y * weight).sum() + state["c"].sum(), variables, retain_graph=True)
    expected = torch.autograd.grad((wanted * weight).sum() + last["c"].sum(), variables)
    for a, b in zip(found, expected, strict=True):
        close(a, b)


def test_initial_weights_are_orthogonal_and_it_remembers():
    mixer = LSTM(LayerContext(width=16, length=T), forget_bias=1.5)
    mixer.reset_parameters(layer=0, depth=1)
    W = mixer.lstm
    for gate in W.weight_hh_l0.split(16):
        torch.testing.assert_close(gate @ gate.T, torch.eye(16), rtol=0, atol=1e-5)
    assert W.bias_ih_l0.split(16)[1].unique().tolist() == [1.5]
    assert W.bias_ih_l0.sum() == 16 * 1.5
    assert W.bias_hh_l0.abs().max() == 0


def test_its_matrices_decay_and_its_biases_do_not():
    assert {name for name, hint in build().param_overrides().items() if hint.decay} == {
        "lstm.weight_ih_l0",
        "lstm.weight_hh_l0",
    }
