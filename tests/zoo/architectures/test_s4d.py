"""S4D: causality, forms, padding, initialisation, hints."""

import math

import pytest
import torch

from zoo.architectures import s4d
from zoo.architectures.s4d import S4D
from zoo.contract import LayerContext, Unsupported
from zoo.ops import long_convolution, vandermonde

B, T, D = 3, 21, 6
DISC = pytest.mark.parametrize("disc", ["zoh", "bilinear"])


def build(disc="zoh", init="lin", **options):
    """A float64 mixer, every parameter random (A and Δ around their initial values), and inputs."""
    torch.manual_seed(0)
    mixer = S4D(
        LayerContext(width=D, length=T), d_state=8, disc=disc, init=init, dt_min=0.01, dt_max=0.5, **options
    ).double()
    for name, parameter in mixer.named_parameters():
        noise = torch.randn_like(parameter)
        parameter.data = parameter.data + 0.3 * noise if name in ("log_dt", "log_A_real", "A_imag") else noise
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def start(mixer):
    return mixer.init_state(B, device="cpu", dtype=torch.float64)


@pytest.mark.parametrize("t", [1, 10, T - 1])
def test_the_future_changes_nothing(t):
    mixer, x = build()
    other = torch.cat([x[:, :t], 100 * torch.randn_like(x[:, t:])], 1)
    torch.testing.assert_close(mixer(other)[0][:, :t], mixer(x)[0][:, :t], rtol=1e-10, atol=1e-10)


@DISC
@pytest.mark.parametrize("init", ["lin", "inv", "legs", "real"])
@pytest.mark.parametrize("cuts", [[1], [7], [T - 8], [1, 7, T - 8], range(1, T)], ids=str)
def test_pieces_continue_exactly(continues, cuts, init, disc):
    """Outputs and final state; a cut before every step is the recurrent form."""
    mixer, x = build(disc, init)
    continues(mixer, x, cuts)


@DISC
def test_gradients_equal_those_of_the_naive_form(monkeypatch, disc):
    """Through outputs and state, against powers written out and the direct sum."""
    mixer, x = build(disc)
    _, before = mixer(x, state=start(mixer))
    before = {"x": before["x"].detach().requires_grad_()}

    def gradients():
        y, after = mixer(x, state=before)
        return torch.autograd.grad(y.square().sum() + after["x"].square().sum(), [*mixer.parameters(), before["x"]])

    fast = gradients()
    monkeypatch.setattr(vandermonde, "evaluate", vandermonde.evaluate_naive)
    monkeypatch.setattr(vandermonde, "accumulate", vandermonde.accumulate_naive)
    monkeypatch.setattr(s4d, "convolve", long_convolution.convolve_naive)
    torch.testing.assert_close(fast, gradients())


def test_padding_leaves_no_trace():
    """Junk changes no valid output and no state; each row ends as it would alone, empty rows as they began."""
    mixer, x = build()
    lengths = [T, 5, 0]
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    _, before = mixer(torch.randn_like(x), state=start(mixer))
    y, state = mixer(x, mask=mask, state=before)
    y2, state2 = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask, state=before)
    torch.testing.assert_close(y2[mask], y[mask], rtol=0, atol=0)
    torch.testing.assert_close(state2, state, rtol=0, atol=0)
    for row, n in enumerate(lengths):
        alone = {"x": before["x"][row : row + 1]}
        if n:
            y_row, alone = mixer(x[row : row + 1, :n], state=alone)
            torch.testing.assert_close(y_row, y[row : row + 1, :n])
        torch.testing.assert_close(state["x"][row : row + 1], alone["x"])


def test_a_masked_single_step_keeps_the_state():
    mixer, x = build()
    _, before = mixer(x, state=start(mixer))
    _, after = mixer(x[:, :1], mask=torch.tensor([[True], [False], [False]]), state=before)
    torch.testing.assert_close(after["x"][1:], before["x"][1:], rtol=0, atol=0)
    assert not torch.equal(after["x"][0], before["x"][0])


def test_one_step_without_state():
    mixer, x = build()
    torch.testing.assert_close(mixer(x[:, :1])[0], mixer(x)[0][:, :1])


def test_kernel_and_state_stay_float32_under_autocast():
    mixer, x = build()
    mixer, x = mixer.float(), x.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.bfloat16))
    expected, exact = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.float32))
    torch.testing.assert_close(state, exact, rtol=0, atol=0)
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("init", ["lin", "inv", "legs", "real"])
def test_initialisation(init):
    mixer = S4D(LayerContext(width=256, length=T), d_state=16, init=init)
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
    assert mixer.D.std().item() == pytest.approx(1.0, rel=0.2)


def test_hints_cover_the_system_and_leave_the_linear_layer_alone():
    mixer, _ = build()
    hints = mixer.param_overrides()
    assert {name for name, hint in hints.items() if hint.lr_max == 1e-3} == {"log_dt", "log_A_real", "A_imag", "B"}
    assert all(hint.decay is False for hint in hints.values())
    assert {name for name, _ in mixer.named_parameters()} - set(hints) == {"output.weight", "output.bias"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 7}, "even"),
        ({"init": "hippo"}, "known: inv"),
        ({"dt_min": 1}, "dt"),
        ({"n_ssm": 3 * D}, "divide"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        S4D(LayerContext(width=D, length=T), **options)


def test_is_causal_only():
    with pytest.raises(Unsupported):
        S4D(LayerContext(width=D, length=T, causal=False))


def test_works_without_data():
    with torch.device("meta"):
        mixer, x = S4D(LayerContext(width=D, length=T)), torch.randn(B, T, D)
    for state in (None, mixer.init_state(B, device="meta", dtype=torch.float32)):
        y, after = mixer(x, state=state)
        y.sum().backward()
        assert y.shape == x.shape
    assert after["x"].shape == (B, D, 32, 2)
