"""The LSTM against its equations in a loop, with gradients; its state under padding."""

import pytest
import torch
from torch import nn

from zoo.contract import LayerContext, Unsupported
from zoo.mixers.lstm import LSTM

B, T, D = 3, 7, 5
LENGTHS = torch.tensor([7, 3, 0])
MASK = torch.arange(T) < LENGTHS[:, None]


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


def test_starts_from_zeros():
    mixer, x = build(), inputs()
    state = mixer.init_state(B, device="cpu", dtype=torch.float64)
    close(mixer(x)[0], mixer(x, state=state)[0])
    assert state["h"].data_ptr() != state["c"].data_ptr()


def test_state_is_that_of_the_last_valid_step():
    mixer, x = build(), inputs()
    before = {"h": inputs(1, seed=2)[:, 0], "c": inputs(1, seed=3)[:, 0]}
    junk = torch.where(MASK[..., None], x, 100.0)
    y, state = mixer(junk, mask=MASK, state=before)
    for row, n in enumerate(LENGTHS):
        own = {name: value[row : row + 1] for name, value in before.items()}
        if n:
            wanted, own = by_hand(mixer, x[row : row + 1, :n], own["h"], own["c"])
            close(y[row, :n], wanted[0])
        close({name: value[row] for name, value in state.items()}, {name: value[0] for name, value in own.items()})
    assert y.isfinite().all()


def test_a_batch_of_padding_only_keeps_its_state():
    mixer = build()
    before = {"h": inputs(1, seed=2)[:, 0], "c": inputs(1, seed=3)[:, 0]}
    _, after = mixer(inputs(), mask=torch.zeros(B, T, dtype=torch.bool), state=before)
    close(after, before)


@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "padded"])
def test_state_keeps_its_precision_under_autocast(mask):
    mixer = build().float()
    with torch.autocast("cpu", torch.bfloat16):
        _, state = mixer(inputs().bfloat16(), mask=mask, state=mixer.init_state(B, device="cpu", dtype=torch.float32))
    assert {value.dtype for value in state.values()} == {torch.float32}


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


def test_cannot_look_both_ways_alone():
    with pytest.raises(Unsupported, match="Bidirectional"):
        LSTM(LayerContext(width=D, length=T, causal=False))
