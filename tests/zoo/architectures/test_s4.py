"""S4: forms, C̃ and its length, padding, initialisation, hints."""

import copy

import numpy as np
import pytest
import torch

from zoo.architectures import s4
from zoo.architectures.s4 import S4
from zoo.contract import LayerContext
from zoo.layers import hippo
from zoo.ops.cauchy.naive import system

B, T, D = 3, 21, 4
VARIANTS = pytest.mark.parametrize(
    "options",
    [{}, {"init": "fout"}, {"init": "legt", "rank": 2}, {"init": "hippo", "n_ssm": 2}, {"channels": 2, "rank": 3}],
    ids=str,
)


def build(length=T, **options):
    """A float64 mixer, every parameter random around its initial value, and inputs."""
    torch.manual_seed(0)
    mixer = S4(LayerContext(width=D, length=length), d_state=8, dt_min=0.01, dt_max=0.5, **options).double()
    for parameter in mixer.parameters():
        parameter.data = parameter.data + 0.3 * torch.randn_like(parameter)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def start(mixer):
    return mixer.init_state(B, device="cpu", dtype=torch.float64)


def naive_kernel(mixer, steps):
    """C Ā^l B̄ with C from the definition of C̃, all N modes."""
    A, B_bar = system(*mixer.continuous())
    C = torch.view_as_complex(mixer.C)
    C = torch.cat([C, C.conj()], -1).transpose(0, 1)
    L = int(mixer.l_kernel)
    if L:
        C = torch.linalg.solve(torch.eye(A.shape[-1]) - torch.linalg.matrix_power(A, L), C, left=False)
    found = []
    for _ in range(steps):
        found.append(torch.einsum("hkn,hn->kh", C, B_bar).real)
        B_bar = torch.einsum("hmn,hn->hm", A, B_bar)
    return torch.stack(found, -1)


@VARIANTS
@pytest.mark.parametrize("length", [T, 40, 3])
def test_kernel_is_that_of_the_dense_system(options, length):
    """Built for as many steps, for more, and for fewer: nothing is cut and C̃ stays as it is."""
    mixer, x = build(length, **options)
    before = copy.deepcopy(mixer.state_dict())
    torch.testing.assert_close(mixer.kernel(T), naive_kernel(mixer, T), rtol=1e-7, atol=1e-7)
    mixer(x)
    torch.testing.assert_close(mixer.state_dict(), before, rtol=0, atol=0)
    assert int(mixer.l_kernel) == length


@VARIANTS
@pytest.mark.parametrize("cuts", [[1], [7], [1, 7, T - 8], range(1, T)], ids=str)
def test_pieces_continue_exactly(monkeypatch, options, cuts):
    """Outputs and final state, with pieces longer than are taken at once; a cut before every step is one by one."""
    monkeypatch.setattr(s4, "PIECE", 8)
    mixer, x = build(**options)
    whole, final = mixer(x, state=start(mixer))
    torch.testing.assert_close(mixer(x)[0], whole)
    state, pieces = start(mixer), []
    with torch.no_grad():
        for left, right in zip([0, *cuts], [*cuts, T], strict=True):
            y, state = mixer(x[:, left:right], state=state)
            pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    torch.testing.assert_close(state, final)


def test_what_is_kept_for_steps_follows_the_parameters():
    mixer, x = build()
    with torch.no_grad():
        mixer(x, state=start(mixer))
        mixer.A_imag.add_(1)
        mixer.C.data = mixer.C.data + 1
        torch.testing.assert_close(mixer(x, state=start(mixer))[0], mixer(x)[0])
        state = start(mixer)
        assert mixer.dense() is mixer.dense()
        torch.testing.assert_close(mixer(x[:, :1], state=state)[0], mixer(x)[0][:, :1])


def test_a_state_dict_from_before_the_first_pass_holds_c():
    """l_kernel 0: the parameter is C; the first pass turns it into C̃ for its own length, once."""
    mixer, x = build()
    raw = copy.deepcopy(mixer.state_dict()) | {"l_kernel": torch.tensor(0)}
    mixer.load_state_dict(raw)
    want = naive_kernel(mixer, T)
    y, _ = mixer(x)
    assert int(mixer.l_kernel) == T
    assert not torch.equal(mixer.C, raw["C"])
    torch.testing.assert_close(mixer.kernel(T), want, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(mixer(x)[0], y, rtol=0, atol=0)
    with pytest.raises(ValueError, match="attuned to 21"):
        mixer.attune_(3)


def test_padding_leaves_no_trace(monkeypatch):
    """Junk changes no valid output and no state; each row ends as it would alone, empty rows as they began."""
    monkeypatch.setattr(s4, "PIECE", 8)
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
    _, after = mixer(x[:, :1], mask=torch.tensor([[True], [False], [False]]), state=before)
    torch.testing.assert_close(after["x"][1:], before["x"][1:])
    assert not torch.equal(after["x"][0], before["x"][0])


def test_kernel_and_state_stay_float32_under_autocast():
    mixer, x = build()
    mixer, x = mixer.float(), x.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.bfloat16))
    expected, exact = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.float32))
    torch.testing.assert_close(state, exact, rtol=0, atol=0)
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("measure", hippo.MEASURES)
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
    legs, fout = (hippo.nplr(measure, 16) for measure in ("legs", "fout"))
    for row, form in enumerate((legs, fout)):
        want = [np.log(np.clip(-form.w.real, 1e-4, None)), -form.w.imag, form.P, form.B]
        A_imag, P, B_ = (
            mixer.A_imag[row],
            torch.view_as_complex(mixer.P)[:, row],
            torch.view_as_complex(mixer.B)[0, row],
        )
        for got, value in zip((mixer.log_A_real[row], A_imag, P, B_), want, strict=True):
            torch.testing.assert_close(got.detach().to(torch.complex128), torch.tensor(value, dtype=torch.complex128))
    assert legs.B.imag.min() == -2 or legs.B.imag.max() == 2
    assert 1e-3 <= mixer.log_dt.exp().min() < 2e-3
    assert 5e-2 < mixer.log_dt.exp().max() <= 1e-1
    assert mixer.dense().C.square().mean().item() == pytest.approx(2.0, rel=0.15)  # 2 Re C and −2 Im C, E|C|² = 1


def test_channels_share_systems_in_turn():
    mixer, _ = build(n_ssm=2)
    dt = mixer.log_dt.exp()
    a, _, _ = mixer.continuous()
    torch.testing.assert_close((a / dt)[0], (a / dt)[2])
    assert not torch.allclose((a / dt)[0], (a / dt)[1])


def test_hints_cover_the_system_and_leave_the_linear_layer_alone():
    mixer, _ = build()
    hints = mixer.param_overrides()
    assert {n for n, hint in hints.items() if hint.lr_max == 1e-3} == {"log_dt", "log_A_real", "A_imag", "B", "P"}
    assert all(hint.decay is False for hint in hints.values())
    assert {name for name, _ in mixer.named_parameters()} - set(hints) == {"output.weight", "output.bias"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 7}, "even"),
        ({"init": "lin"}, "known: legs"),
        ({"init": "legt"}, "rank 2"),
        ({"n_ssm": 3}, "n_ssm 3"),
        ({"n_ssm": 0}, "n_ssm 0"),
        ({"init": "hippo", "n_ssm": 1}, "even for init hippo"),
        ({"channels": 0}, "channels"),
        ({"dt_min": 1}, "dt"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        S4(LayerContext(width=D, length=T), **options)


def test_works_without_data():
    with torch.device("meta"):
        mixer, x = S4(LayerContext(width=D, length=T)), torch.randn(B, 2 * T, D)
    for state in (None, mixer.init_state(B, device="meta", dtype=torch.float32)):
        y, after = mixer(x, state=state)
        y.sum().backward()
        assert y.shape == x.shape
    assert after["x"].shape == (B, D, 32, 2)
