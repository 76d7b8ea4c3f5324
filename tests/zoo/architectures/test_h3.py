"""H3: states of every kind, pieces, masked steps, initial values, hints, errors."""

import math

import pytest
import torch

from zoo.architectures import h3
from zoo.architectures.h3 import H3
from zoo.contract import LayerContext, Unsupported
from zoo.ops import forms, long_convolution, vandermonde

B, T, D, N = 3, 21, 6, 8
HEADS = pytest.mark.parametrize("head_dim", [1, 3])


def build(head_dim=1, **options):
    """A float64 mixer with random parameters, and inputs."""
    torch.manual_seed(0)
    mixer = H3(
        LayerContext(width=D, length=T), d_state=N, head_dim=head_dim, dt_min=0.01, dt_max=0.5, **options
    ).double()
    for parameter in mixer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def start(mixer):
    """A state that something has been read into."""
    zero = mixer.init_state(B, device="cpu", dtype=torch.float64)
    return mixer(torch.randn(B, 5, D, dtype=torch.float64), state=zero)[1]


@HEADS
@pytest.mark.parametrize("disc", ["zoh", "bilinear"])
@pytest.mark.parametrize("cuts", [[1], [N - 1, N, N + 1], [3, T - 1], range(1, T)], ids=str)
def test_pieces_continue_exactly(cuts, disc, head_dim):
    """Pieces shorter and longer than the shift model's memory, from a state that is not zero."""
    mixer, x = build(head_dim, disc=disc)
    state = start(mixer)
    whole, final = mixer(x, state=state)
    pieces = []
    for left, right in zip([0, *cuts], [*cuts, T], strict=True):
        y, state = mixer(x[:, left:right], state=state)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    torch.testing.assert_close(state, final)


@pytest.mark.parametrize("masked", [False, True])
def test_by_channel_or_by_step(monkeypatch, masked):
    """With time last it is the same function, in outputs and gradients."""
    mixer, x = build()
    mask = torch.arange(T) < torch.tensor([[T], [4], [0]]) if masked else None
    seen = torch.ones(B, T, dtype=torch.bool) if mask is None else mask

    def results():
        x_ = x.clone().requires_grad_()
        y = mixer(x_, mask=mask)[0][seen]
        return y, *torch.autograd.grad(y.square().sum(), [x_, *mixer.parameters()])

    by_step = results()
    monkeypatch.setattr(forms, "FEW", 0)
    torch.testing.assert_close(results(), by_step)


@HEADS
def test_gradients_equal_those_of_single_steps_and_the_naive_form(monkeypatch, head_dim):
    mixer, x = build(head_dim)
    before = {name: value.detach().requires_grad_() for name, value in start(mixer).items()}

    def gradients(sizes):
        state, total = before, 0.0
        for piece in x.split(sizes, 1):
            y, state = mixer(piece, state=state)
            total = total + y.square().sum()
        total = total + sum(value.square().sum() for value in state.values())
        return torch.autograd.grad(total, [*mixer.parameters(), *before.values()])

    fast = gradients(T)
    torch.testing.assert_close(gradients(1), fast)
    monkeypatch.setattr(vandermonde, "evaluate", vandermonde.evaluate_naive)
    monkeypatch.setattr(vandermonde, "accumulate", vandermonde.accumulate_naive)
    monkeypatch.setattr(h3, "convolve", long_convolution.convolve_naive)
    torch.testing.assert_close(gradients(T), fast)


@HEADS
def test_padding_leaves_no_trace(head_dim):
    """NaN in masked steps changes nothing; rows end as they would alone, an empty one as it began."""
    mixer, x = build(head_dim)
    lengths, before = [T, 5, 0], start(mixer)
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    y, state = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask, state=before)
    assert y.isfinite().all()
    for row, n in enumerate(lengths):
        alone = {name: value[row : row + 1] for name, value in before.items()}
        if n:
            want, alone = mixer(x[row : row + 1, :n], state=alone)
            torch.testing.assert_close(y[row : row + 1, :n], want)
        torch.testing.assert_close({name: value[row : row + 1] for name, value in state.items()}, alone)
    one = mixer(x[:, :1], mask=mask[:, 6:7], state=before)[1]
    for name in before:
        torch.testing.assert_close(one[name][1:], before[name][1:], rtol=0, atol=0)
        assert not torch.equal(one[name][0], before[name][0])


def test_states_have_the_official_shapes():
    for head_dim in (1, 3):
        state = build(head_dim)[0].init_state(2, device="cpu", dtype=torch.bfloat16)
        assert {k: tuple(v.shape) for k, v in state.items()} == {
            "shift": (2, D, N),
            "diag": (2, head_dim * D, N // 2, 2),
        }
        assert all(value.dtype is torch.float32 for value in state.values())


def test_layouts_are_permutations_of_channels():
    """`d h` puts channel (head, j) at j·H + head."""
    mixer, x = build(3)
    mixer.output_linear.weight.data, mixer.output_linear.bias.data = torch.eye(D).double(), torch.zeros(D).double()
    other, _ = build(3, layout="d h")
    other.load_state_dict(mixer.state_dict())
    torch.testing.assert_close(other(x)[0], mixer(x)[0].view(B, T, D // 3, 3).transpose(2, 3).reshape(B, T, D))


def test_initialisation():
    mixer = H3(LayerContext(width=256, length=T), d_state=16)
    shift, diagonal = mixer.ssm_k_kernel["kernel"], mixer.kernel["kernel"]
    torch.testing.assert_close(shift.B.detach(), torch.eye(1, 16).expand(256, 16))
    assert 0.24 < shift.C.abs().max() <= 0.25
    torch.testing.assert_close(diagonal.A_imag.detach(), math.pi * torch.arange(8.0).expand(256, 8))
    torch.testing.assert_close(diagonal.inv_A_real.detach(), torch.full((256, 8), math.log(0.5)))
    torch.testing.assert_close(diagonal.B.detach(), torch.tensor([1.0, 0.0]).expand(256, 8, 2))
    assert diagonal.C.var().item() == pytest.approx(0.5, rel=0.1)
    dt = diagonal.log_dt.exp()
    assert 1e-3 <= dt.min() < 2e-3
    assert 5e-2 < dt.max() <= 1e-1
    assert mixer.D.std().item() == pytest.approx(1, rel=0.2)
    assert mixer.ssm_k_D.std().item() == pytest.approx(1, rel=0.2)


def test_hints():
    hints = build()[0].param_overrides()
    diagonal = {f"kernel.kernel.{name}" for name in ("log_dt", "inv_A_real", "A_imag", "B")}
    assert {name for name, hint in hints.items() if hint.lr_max == 1e-3} == diagonal | {"ssm_k_kernel.kernel.B"}
    assert set(hints) - diagonal == {
        "ssm_k_kernel.kernel.B",
        "ssm_k_kernel.kernel.C",
        "kernel.kernel.C",
        "ssm_k_D",
        "D",
    }
    assert all(hint.decay is False for hint in hints.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 7}, "even"),
        ({"head_dim": 4}, "width 6 does not divide into heads of 4"),
        ({"init": "hippo"}, "known: inv"),
        ({"disc": "euler"}, "known: zoh"),
        ({"layout": "hd"}, "known: h d"),
        ({"dt_min": 1}, "dt"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        H3(LayerContext(width=D, length=T), **options)


def test_is_causal_only():
    with pytest.raises(Unsupported):
        H3(LayerContext(width=D, length=T, causal=False))


@HEADS
def test_works_without_data(head_dim):
    with torch.device("meta"):
        mixer, x = H3(LayerContext(width=D, length=T), head_dim=head_dim), torch.randn(B, T, D)
    for state in (None, mixer.init_state(B, device="meta", dtype=torch.float32)):
        for steps in (1, T):
            y, _ = mixer(x[:, :steps], state=state)
            assert y.shape == (B, steps, D)
