"""sLSTM: the recurrence of the paper, extreme gates, initialisation, hints."""

import pytest
import torch

from zoo.architectures.slstm import SLSTM
from zoo.contract import LayerContext

B, T, D = 3, 11, 6


def build(**options):
    """A float64 mixer, every parameter random, and inputs."""
    torch.manual_seed(0)
    mixer = SLSTM(LayerContext(width=D, length=T), **options).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def paper(mixer, x):
    """Section 2.2, written out without stabilisation; the norm over each head with its own loop."""
    weights, heads = dict(mixer.named_parameters()), mixer.heads
    d = D // heads
    a = x
    if mixer.conv1d is not None:
        kernel = weights["conv1d.conv.weight"][:, 0]
        line = torch.cat([x.new_zeros(B, kernel.shape[1] - 1, D), x], dim=1)
        sums = [(line[:, t : t + kernel.shape[1]] * kernel.T).sum(1) for t in range(T)]
        a = torch.nn.functional.silu(torch.stack(sums, 1) + weights["conv1d.conv.bias"])
    W = {gate: torch.block_diag(*weights[f"{gate}gate.weight"]) for gate in "fizo"}
    R = weights["slstm_cell._recurrent_kernel_"].view(heads, 4, d, d)
    R = [torch.block_diag(*R[:, gate]) for gate in range(4)]
    b = weights["slstm_cell._bias_"].view(4, D)
    h = c = n = torch.zeros(B, D, dtype=x.dtype)
    outputs = []
    for t in range(T):
        # What is called fgate drives the input gate, and the other way round.
        fed = [a[:, t] @ W["f"].T, a[:, t] @ W["i"].T, x[:, t] @ W["z"].T, x[:, t] @ W["o"].T]
        i, f, z, o = (fed[gate] + h @ R[gate].T + b[gate] for gate in range(4))
        c = torch.sigmoid(f) * c + torch.exp(i) * torch.tanh(z)
        n = torch.sigmoid(f) * n + torch.exp(i)
        h = torch.sigmoid(o) * c / n
        normed = [(u - u.mean(1, keepdim=True)) / (u.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
                  for u in h.split(d, dim=1)]  # fmt: skip
        y = torch.cat(normed, 1)
        outputs.append(y * (1 + weights["group_norm.weight"]) if "group_norm.weight" in weights else y)
    return torch.stack(outputs, 1), {"h": h, "c": c, "n": n}


@pytest.mark.parametrize(
    "options",
    [{"heads": 2}, {"heads": 3, "conv1d_kernel_size": 0}, {"heads": 1, "group_norm_weight": False}],
    ids=str,
)
def test_is_the_layer_of_the_paper(options):
    """Outputs, the state without its scale, and gradients."""
    mixer, x = build(**options)
    y, state = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.float64))
    wanted, after = paper(mixer, x)
    torch.testing.assert_close(y, wanted)
    torch.testing.assert_close(mixer(x)[0], wanted)
    scale = state["m"].exp()
    found = {"h": state["h"], "c": state["c"] * scale, "n": state["n"] * scale}
    torch.testing.assert_close(found, after)
    weight = torch.randn_like(y)
    got, expected = (torch.autograd.grad((out * weight).sum(), list(mixer.parameters())) for out in (y, wanted))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("size", [300.0, -300.0])
def test_extreme_gates_stay_finite(size):
    """In float32, where e^89 is infinite."""
    mixer, x = build(heads=2)
    mixer, x = mixer.float(), x.float()
    mixer.slstm_cell._bias_.data[: 2 * D] += size * torch.randn(2 * D).sign()
    y, state = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.float32))
    y.square().sum().backward()
    assert bool((state["n"] >= 1).all())
    assert all(bool(value.isfinite().all()) for value in (y, *state.values(), *(p.grad for p in mixer.parameters())))


@pytest.mark.parametrize(("layer", "power"), [(0, 0.3), (2, 0.95), (4, 1.6)])
def test_initialisation(layer, power):
    mixer = SLSTM(LayerContext(width=64, length=T), heads=4)
    for parameter in mixer.parameters():
        parameter.data.fill_(torch.nan)
    mixer.reset_parameters(layer=layer, depth=5)
    for gate in (mixer.fgate, mixer.igate, mixer.zgate, mixer.ogate):
        assert gate.weight.std().item() == pytest.approx((2 / (5 * 64)) ** 0.5, rel=0.15)
    assert not mixer.slstm_cell._recurrent_kernel_.any()
    i, f, z, o = mixer.slstm_cell._bias_.detach().view(4, 4, 16)
    assert not any(bool(zero.any()) for zero in (i, z, o, mixer.group_norm.weight))
    torch.testing.assert_close(f, (5 - 12 * (torch.arange(16) / 15) ** power).expand(4, 16))
    assert bool(mixer.conv1d.conv.weight.isfinite().all())


def test_other_initialisations():
    mixer = SLSTM(LayerContext(width=64, length=T), bias_init="small_init", recurrent_weight_init="standard")
    torch.testing.assert_close(mixer.slstm_cell._bias_.detach().view(4, 4, 16)[1, 2], torch.linspace(3, 6, 16))
    assert 0.1 < mixer.slstm_cell._recurrent_kernel_.abs().max() <= 0.125
    assert not SLSTM(LayerContext(width=64, length=T), bias_init="zeros").slstm_cell._bias_.any()
    assert 0.1 < SLSTM(LayerContext(width=64, length=T), bias_init="standard").slstm_cell._bias_.abs().max() <= 0.125
    assert bool(SLSTM(LayerContext(width=4, length=T)).slstm_cell._bias_.isfinite().all())  # one unit per head


def test_hints():
    mixer, _ = build(heads=2)
    hints, names = mixer.param_overrides(), dict(mixer.named_parameters())
    assert {name for name, hint in hints.items() if hint.decay} == {f"{gate}gate.weight" for gate in "fizo"}
    left = {"conv1d.conv.weight", "conv1d.conv.bias"}
    assert names.keys() - hints.keys() == left
    assert hints.keys() <= names.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 4}, "width 6 does not divide into 4 heads"),
        ({"heads": 2, "conv1d_kernel_size": -1}, "conv1d_kernel_size"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        SLSTM(LayerContext(width=D, length=T), **options)
