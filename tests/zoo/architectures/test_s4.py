"""S4: HiPPO as normal plus low rank, C̃ and lengths, what is kept between steps, initial values."""

import copy

import numpy as np
import pytest
import torch

from zoo.architectures import s4
from zoo.architectures.s4 import S4
from zoo.contract import LayerContext
from zoo.layers import hippo

from .mixers import shaken, start, vectors

B, T, D = 3, 21, 4


def build(length=T, **options):
    return shaken(S4(LayerContext(width=D, length=length), d_state=8, dt_min=0.01, dt_max=0.5, **options))


@pytest.mark.parametrize("length", [T, 40, 3])
def test_a_pass_leaves_the_parameters_as_they_are(length):
    """Built for as many steps, for more, and for fewer: nothing is cut and C̃ stays."""
    mixer = build(length)
    before = copy.deepcopy(mixer.state_dict())
    mixer(vectors(B, T, D))
    torch.testing.assert_close(mixer.state_dict(), before, rtol=0, atol=0)
    assert int(mixer.l_kernel) == length


def test_long_sequences_are_read_in_pieces(monkeypatch):
    """From a state, with padding; the whole is what one convolution gives."""
    mixer, x = build(), vectors(B, T, D)
    mask = torch.arange(T) < torch.tensor([T, 11, 0])[:, None]
    whole, final = mixer(x, mask=mask, state=start(mixer, x))
    monkeypatch.setattr(s4, "PIECE", 8)
    y, after = mixer(x, mask=mask, state=start(mixer, x))
    torch.testing.assert_close((y[mask], after), (whole[mask], final))
    torch.testing.assert_close(mixer(x, state=start(mixer, x))[0], mixer(x)[0])


def test_what_is_kept_for_steps_follows_the_parameters():
    mixer, x = build(), vectors(B, T, D)
    with torch.no_grad():
        mixer(x, state=start(mixer, x))
        mixer.A_imag.add_(1)
        mixer.C.data = mixer.C.data + 1
        torch.testing.assert_close(mixer(x, state=start(mixer, x))[0], mixer(x)[0])
        assert mixer.dense() is mixer.dense()
        torch.testing.assert_close(mixer(x[:, :1], state=start(mixer, x))[0], mixer(x)[0][:, :1])


def test_a_state_dict_from_before_the_first_pass_holds_c():
    """l_kernel 0: the parameter is C; the first pass turns it into C̃ for its own length, once."""
    mixer, x = build(), vectors(B, T, D)
    raw = copy.deepcopy(mixer.state_dict()) | {"l_kernel": torch.tensor(0)}
    mixer.load_state_dict(raw)
    y, _ = mixer(x)
    assert int(mixer.l_kernel) == T
    assert not torch.equal(mixer.C, raw["C"])
    torch.testing.assert_close(mixer(x)[0], y, rtol=0, atol=0)
    with pytest.raises(ValueError, match="attuned to 21"):
        mixer.attune_(3)


@pytest.mark.parametrize("measure", hippo.RANK)
def test_hippo_is_normal_plus_low_rank(measure):
    """A = V (Λ − P P*) V* and B = V (V* B), over both modes of each pair."""
    A, B_, _ = hippo.transition(measure, 16)
    w, P, b, V = hippo.nplr(measure, 16, hippo.RANK[measure], None)
    both = np.concatenate([V, V.conj()], 1)
    Lambda, P = np.diag(np.concatenate([w, w.conj()])), np.concatenate([P, P.conj()], 1)
    np.testing.assert_allclose(both @ (Lambda - P.T @ P.conj()) @ both.conj().T, A, atol=1e-12)
    np.testing.assert_allclose(2 * (V @ b).real, B_, atol=1e-12)


def test_initialisation():
    mixer = S4(LayerContext(width=128, length=64), d_state=16, n_ssm=2, init="hippo")
    P, B_ = (torch.view_as_complex(p.detach()) for p in (mixer.P, mixer.B))
    for row, form in enumerate(hippo.nplr(measure, 16) for measure in ("legs", "fout")):
        want = [np.log(np.clip(-form.w.real, 1e-4, None)), -form.w.imag, form.P, form.B]
        for got, value in zip((mixer.log_A_real[row], mixer.A_imag[row], P[:, row], B_[0, row]), want, strict=True):
            torch.testing.assert_close(got.detach().to(torch.complex128), torch.tensor(value, dtype=torch.complex128))
    legs = hippo.nplr("legs", 16)
    assert legs.B.imag.min() == -2 or legs.B.imag.max() == 2
    assert 1e-3 <= mixer.log_dt.exp().min() < 2e-3
    assert 5e-2 < mixer.log_dt.exp().max() <= 1e-1
    assert mixer.dense().C.square().mean().item() == pytest.approx(2.0, rel=0.15)  # 2 Re C and −2 Im C, E|C|² = 1


def test_channels_share_systems_in_turn():
    mixer = build(n_ssm=2)
    a = mixer.continuous()[0] / mixer.log_dt.exp()
    torch.testing.assert_close(a[0], a[2])
    assert not torch.allclose(a[0], a[1])
