"""Mamba: the layer written out step by step, padding, initialisation, hints."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.mamba import Mamba
from zoo.contract import LayerContext, Unsupported

B, T, D = 3, 13, 6


def build(**options):
    """A float64 mixer, every parameter random around its start, and inputs."""
    torch.manual_seed(0)
    mixer = Mamba(LayerContext(width=D, length=T), **options).double()
    for parameter in mixer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def naive(m, x):
    """The paper's equations, one step, one tap at a time."""
    N, rank = m.A_log.shape[1], m.dt_proj.weight.shape[1]
    W = m.conv1d.weight.shape[-1]
    u, z = m.in_proj(x).chunk(2, -1)
    h, past, outputs = 0.0, [torch.zeros_like(u[:, 0])] * (W - 1), []
    for t in range(x.shape[1]):
        past = [*past[len(past) - W + 1 :], u[:, t]] if W > 1 else [u[:, t]]
        c = sum(tap * m.conv1d.weight[:, 0, j] for j, tap in enumerate(past))
        c = F.silu(c if m.conv1d.bias is None else c + m.conv1d.bias)
        low, Bt, Ct = m.x_proj(c).split([rank, N, N], -1)
        delta = F.softplus(m.dt_proj(low))
        h = torch.exp(delta[..., None] * -m.A_log.exp()) * h + delta[..., None] * Bt[:, None] * c[..., None]
        y = (h * Ct[:, None]).sum(-1) + m.D * c
        outputs.append(m.out_proj(y * F.silu(z[:, t])))
    return torch.stack(outputs, 1), h


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"d_state": 3, "d_conv": 1, "expand": 1.5, "dt_rank": 4, "bias": True},
        {"d_conv": 2, "conv_bias": False},
    ],
    ids=str,
)
def test_equals_the_equations(options):
    mixer, x = build(**options)
    want, last = naive(mixer, x)
    y, state = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.float64))
    torch.testing.assert_close(y, want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state["h"], last, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(want)
    got, wanted = (torch.autograd.grad((out * weights).sum(), list(mixer.parameters())) for out in (mixer(x)[0], want))
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_padding_may_be_nan_and_an_empty_row_keeps_its_state():
    mixer, x = build()
    lengths = [T, 5, 0]
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    _, before = mixer(torch.randn_like(x), state=mixer.init_state(B, device="cpu", dtype=torch.float64))
    y, after = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask, state=before)
    assert y.isfinite().all()
    for row, n in enumerate(lengths[:2]):
        own = {name: value[row : row + 1] for name, value in before.items()}
        alone, own = mixer(x[row : row + 1, :n], state=own)
        torch.testing.assert_close(y[row : row + 1, :n], alone)
        torch.testing.assert_close({name: value[row : row + 1] for name, value in after.items()}, own)
    torch.testing.assert_close(
        {n: v[2] for n, v in after.items()}, {n: v[2] for n, v in before.items()}, rtol=0, atol=0
    )


def test_the_recurrence_stays_float32_under_autocast():
    mixer, x = build()
    mixer, x = mixer.float(), x.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.bfloat16))
    assert {name: value.dtype for name, value in state.items()} == {"conv": torch.bfloat16, "h": torch.float32}
    torch.testing.assert_close(y.float(), mixer(x)[0], rtol=0.05, atol=0.05)


def test_initialisation():
    torch.manual_seed(0)
    mixer = Mamba(LayerContext(width=64, length=T, depth=4), d_state=5, bias=True)
    torch.testing.assert_close(-mixer.A_log.exp().detach(), -torch.arange(1.0, 6).expand(128, 5))
    assert (mixer.D == 1).all()
    delta = F.softplus(mixer.dt_proj.bias)
    assert 1e-3 <= delta.min() < 2e-3
    assert 5e-2 < delta.max() <= 0.1001
    assert mixer.x_proj.out_features == 4 + 10  # dt_rank = ⌈64 / 16⌉
    assert mixer.dt_proj.weight.abs().max().item() == pytest.approx(0.5, rel=0.02)
    assert mixer.in_proj.weight.abs().max().item() == pytest.approx(64**-0.5, rel=0.02)
    assert mixer.out_proj.weight.abs().max().item() == pytest.approx(128**-0.5 / 2, rel=0.02)
    assert not mixer.in_proj.bias.any()
    assert not mixer.out_proj.bias.any()
    constant = Mamba(LayerContext(width=64, length=T), dt_init="constant", dt_scale=2.0, dt_min=1e-6, dt_max=1e-5)
    assert (constant.dt_proj.weight == 1).all()
    torch.testing.assert_close(F.softplus(constant.dt_proj.bias), torch.full((128,), 1e-4))  # the floor


def test_hints():
    mixer, _ = build()
    assert {name for name, hint in mixer.param_overrides().items() if hint.decay is False} == {
        "A_log",
        "D",
        "dt_proj.bias",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 0}, "d_state"),
        ({"d_conv": 0}, "d_conv"),
        ({"expand": 0.1}, "expand"),
        ({"dt_rank": "full"}, "dt_rank"),
        ({"dt_init": "zero"}, "known: random"),
        ({"dt_min": 1.0}, "dt_min"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        Mamba(LayerContext(width=D, length=T), **options)


def test_is_causal_only():
    with pytest.raises(Unsupported):
        Mamba(LayerContext(width=D, length=T, causal=False))
