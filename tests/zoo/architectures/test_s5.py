"""S5: the recurrence as it reads, both directions, initialisation, hints."""

import numpy as np
import pytest
import torch

from zoo.architectures.s5 import S5
from zoo.contract import LayerContext
from zoo.layers import diagonal
from zoo.ops import diagonal_scan

B, T, D = 3, 13, 6


def build(causal=True, **options):
    """A float64 mixer, every parameter random around its initial value, and inputs."""
    torch.manual_seed(0)
    context = LayerContext(width=D, length=T, causal=causal)
    mixer = S5(context, **({"d_state": 8, "blocks": 2, "dt_min": 0.01, "dt_max": 0.5} | options)).double()
    for parameter in mixer.parameters():
        parameter.data = parameter.data + 0.2 * torch.randn_like(parameter)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


@pytest.mark.parametrize("causal", [True, False])
def test_outputs_state_and_gradients_equal_the_naive_scan(monkeypatch, causal):
    mixer, x = build(causal)
    state = mixer.init_state(B, device="cpu", dtype=torch.float64) if causal else None
    mask = torch.arange(T) < torch.tensor([T, 6, 0])[:, None]

    def everything():
        y, after = mixer(x, mask=mask, state=state)
        total = y[mask].square().sum() + (after["x"].square().sum() if causal else 0)
        return y, after, torch.autograd.grad(total, list(mixer.parameters()))

    fast = everything()
    monkeypatch.setattr(diagonal, "scan", diagonal_scan.scan_naive)
    torch.testing.assert_close(fast, everything())


def test_both_directions_keep_to_the_valid_steps():
    """Each row, padded with NaN, gives what it gives alone; the second C reads the future."""
    mixer, x = build(causal=False)
    lengths = [T, 6, 1]
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    y, _ = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask)
    for row, n in enumerate(lengths):
        torch.testing.assert_close(mixer(x[row : row + 1, :n])[0], y[row : row + 1, :n])
    with torch.no_grad():
        whole = mixer(x)[0]
        mixer.C2.zero_()
        ahead = mixer(x)[0]
        torch.testing.assert_close(mixer(x[:, :5])[0], ahead[:, :5])
    assert (whole - ahead).abs().max() > 1e-2


def test_clipped_eigenvalues():
    mixer, _ = build(clip_eigs=True)
    mixer.Lambda_re.data.fill_(1.0)
    assert mixer.discretise()[0].abs().max() < 1
    mixer.clip_eigs = False
    assert mixer.discretise()[0].abs().min() > 1


@pytest.mark.parametrize("conj_sym", [True, False])
def test_initialisation(conj_sym):
    """Real B and C in the eigenbasis of HiPPO's blocks: the model's own B C is real, with the sampled spread."""
    torch.manual_seed(0)
    mixer = S5(LayerContext(width=512, length=T), d_state=32, blocks=4, conj_sym=conj_sym)
    n = np.arange(8)
    half = np.sqrt(n + 0.5)
    skew = -np.tril(np.outer(half, half) * 2, -1) - np.diag(n + 1) + np.outer(half, half)
    want = np.sort(np.linalg.eigvals(skew).imag)
    torch.testing.assert_close(mixer.Lambda_re.detach(), torch.full_like(mixer.Lambda_re, -0.5))
    torch.testing.assert_close(mixer.Lambda_im.detach(), torch.tensor(want[:4] if conj_sym else want).float().repeat(4))
    steps = mixer.log_step.exp()
    assert 1e-3 <= steps.min() < 5e-3 < 2e-2 < steps.max() <= 1e-1
    # V is orthonormal: |V* B|² sums to |B|² over all modes, and to half of it over one of each pair.
    share = 0.5 if conj_sym else 1.0
    assert mixer.B.square().sum().item() == pytest.approx(512 * share, rel=0.05)
    assert mixer.C.square().sum().item() == pytest.approx(2 * 512 * share, rel=0.05)
    assert mixer.out2.weight.std().item() == pytest.approx(512**-0.5, rel=0.05)
    assert mixer.out2.weight.abs().max() < 2.3 * 512**-0.5  # cut at two standard deviations
    assert not mixer.out2.bias.any()


@pytest.mark.parametrize(("C_init", "std"), [("lecun_normal", (6 * 64) ** -0.5), ("complex_normal", 0.5**0.5)])
def test_other_initial_readers(C_init, std):
    mixer = S5(LayerContext(width=6, length=T), d_state=64, blocks=1, C_init=C_init)
    assert mixer.C.square().mean().sqrt().item() == pytest.approx(std, rel=0.15)


def test_hints():
    mixer, _ = build(causal=False)
    hints = mixer.param_overrides()
    assert {n for n, hint in hints.items() if hint.lr_max == 1e-3} == {"Lambda_re", "Lambda_im", "log_step", "B"}
    assert {name: hint.decay for name, hint in hints.items() if hint.lr_max is None} == {
        "D": False,
        "C1": True,
        "C2": True,
    }


def test_state_stays_float32_under_autocast():
    mixer, x = build()
    mixer, x = mixer.float(), x.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, state = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.bfloat16))
    _, exact = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.float32))
    torch.testing.assert_close(state, exact, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 12, "blocks": 4}, "d_state 12 does not divide into 4 blocks"),
        ({"blocks": 0}, "blocks"),
        ({"dt_min": 1}, "dt"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        S5(LayerContext(width=D, length=T), **options)


@pytest.mark.parametrize("causal", [True, False])
def test_works_without_data(causal):
    with torch.device("meta"):
        mixer, x = S5(LayerContext(width=D, length=T, causal=causal)), torch.randn(B, T, D)
    state = mixer.init_state(B, device="meta", dtype=torch.float32) if causal else None
    y, _ = mixer(x, state=state)
    y.sum().backward()
    assert y.shape == x.shape
