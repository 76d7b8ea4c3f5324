"""Mamba-2: the layer written out step by step, padding, initialisation, hints."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.mamba2 import Mamba2
from zoo.contract import LayerContext

B, T, D = 3, 13, 8


def build(**options):
    """A float64 mixer, every parameter random around its start, and inputs."""
    torch.manual_seed(0)
    mixer = Mamba2(LayerContext(width=D, length=T), **{"d_state": 5, "headdim": 4, "chunk_size": 4, **options}).double()
    for parameter in mixer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def rms(y, groups):
    y = y.unflatten(-1, (groups, -1))
    return (y * (y.square().mean(-1, keepdim=True) + 1e-5).rsqrt()).flatten(-2)


def naive(m, x, *, G=1, limit=(0.0, float("inf")), norm_groups=None, before_gate=False):
    """The paper's equations, a step at a time."""
    H, N, P = len(m.A_log), m.d_state, m.headdim
    inner, channels = H * P, m.conv1d.in_channels
    spare = (m.in_proj.out_features - inner - channels - H) // 2
    z0, x0, z, xBC, dt = m.in_proj(x).split([spare, spare, inner, channels, H], -1)
    W = m.conv1d.kernel_size[0]
    xBC = F.silu(F.conv1d(F.pad(xBC.transpose(1, 2), (W - 1, 0)), m.conv1d.weight, m.conv1d.bias, groups=channels))
    xs, Bs, Cs = xBC.transpose(1, 2).split([inner, G * N, G * N], -1)
    S, outputs = torch.zeros(B, H, N, P, dtype=x.dtype), []
    for t in range(T):
        heads = []
        delta = F.softplus(dt[:, t] + m.dt_bias).clamp(*limit)
        new = []
        for h in range(H):
            g = h // (H // G)
            v, k, q = xs[:, t, h * P : (h + 1) * P], Bs[:, t, g * N : (g + 1) * N], Cs[:, t, g * N : (g + 1) * N]
            a = torch.exp(-delta[:, h] * m.A_log[h].exp())
            new.append(a[:, None, None] * S[:, h] + k[:, :, None] * (delta[:, h, None] * v)[:, None])
            skip = m.D[h] if len(m.D) == H else m.D[h * P : (h + 1) * P]
            heads.append((new[-1] * q[:, :, None]).sum(1) + skip * v)
        S = torch.stack(new, 1)
        outputs.append(torch.cat(heads, -1))
    y, gate = torch.stack(outputs, 1), F.silu(z)
    if m.norm is None:
        y = y * gate
    elif before_gate:
        y = rms(y, norm_groups or G) * m.norm.weight * gate
    else:
        y = rms(y * gate, norm_groups or G) * m.norm.weight
    return m.out_proj(torch.cat([F.silu(z0) * x0, y], -1)), S


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, {}),
        ({"ngroups": 2, "d_conv": 2, "bias": True, "conv_bias": False}, {"G": 2}),
        ({"ngroups": 2, "norm_groups": 1, "D_has_hdim": True}, {"G": 2, "norm_groups": 1}),
        ({"norm_before_gate": True, "dt_limit": (0.3, 0.9)}, {"before_gate": True, "limit": (0.3, 0.9)}),
        ({"rmsnorm": False, "d_ssm": 12, "expand": 3}, {}),
    ],
    ids=str,
)
def test_equals_the_equations(options, told):
    mixer, x = build(**options)
    want, last = naive(mixer, x, **told)
    y, state = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.float64))
    torch.testing.assert_close(y, want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state["S"], last, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(want)
    got, wanted = (torch.autograd.grad((out * weights).sum(), list(mixer.parameters())) for out in (mixer(x)[0], want))
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_padding_may_be_nan_and_an_empty_row_keeps_its_state():
    """Also where Δ has a floor: padding takes no step at all."""
    mixer, x = build(dt_limit=(0.1, 1.0))
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


def test_initialisation():
    torch.manual_seed(0)
    mixer = Mamba2(LayerContext(width=256, length=T, depth=4), d_state=4, headdim=2, conv_init=0.01)
    A = mixer.A_log.exp()
    assert 1 <= A.min() < 1.5
    assert 15 < A.max() <= 16
    delta = F.softplus(mixer.dt_bias)
    assert 1e-3 <= delta.min() < 2e-3
    assert 5e-2 < delta.max() <= 0.1001
    assert (mixer.D == 1).all()
    assert mixer.conv1d.weight.abs().max().item() == pytest.approx(0.01, rel=0.02)
    assert mixer.out_proj.weight.abs().max().item() == pytest.approx(512**-0.5 / 2, rel=0.02)


@pytest.mark.parametrize(("width", "heads"), [(128, 4), (8, 1), (24, 3)])
def test_default_heads_fit_the_width(width, heads):
    assert len(Mamba2(LayerContext(width=width, length=T)).A_log) == heads


def test_hints():
    mixer, _ = build()
    assert {name for name, hint in mixer.param_overrides().items() if hint.decay is False} == {"A_log", "D", "dt_bias"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"headdim": 5}, "heads of 5"),
        ({"ngroups": 3}, "3 groups"),
        ({"norm_groups": 3}, "16 into 3"),
        ({"d_ssm": 20}, "d_ssm 20"),
        ({"d_state": 0}, "d_state"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"A_init_range": (0.0, 1.0)}, "A_init_range"),
        ({"dt_max": 1e-4}, "dt_min"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
