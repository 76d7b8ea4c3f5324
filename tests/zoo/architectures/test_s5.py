"""S5: clipped eigenvalues, initial values."""

import numpy as np
import pytest
import torch

from zoo.architectures.s5 import S5
from zoo.contract import LayerContext

T = 13


def test_clipped_eigenvalues():
    mixer = S5(LayerContext(width=6, length=T), d_state=8, blocks=2, clip_eigs=True)
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
