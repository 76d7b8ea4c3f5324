"""GSS: the convolution against the recurrence, padding, initialisation, hints."""

import pytest
import torch

from zoo.architectures.gss import GSS
from zoo.contract import LayerContext

B, T, D = 3, 13, 8


def build(**options):
    """A float64 mixer, every parameter random around its initial value, and inputs."""
    torch.manual_seed(0)
    mixer = GSS(LayerContext(width=D, length=T), d_state=5, **options).double()
    for parameter in mixer.parameters():
        parameter.data = parameter.data + 0.2 * torch.randn_like(parameter)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def start(mixer):
    return mixer.init_state(B, device="cpu", dtype=torch.float64)


@pytest.mark.parametrize("imag_exp", [True, False])
@pytest.mark.parametrize("cuts", [[1], [5], [1, 6], range(1, T)], ids=str)
def test_pieces_continue_exactly(continues, cuts, imag_exp):
    """Outputs and final state; a cut before every step is the recurrence."""
    mixer, x = build(imag_exp=imag_exp)
    continues(mixer, x, cuts)


def test_padding_leaves_no_trace():
    mixer, x = build()
    lengths = [T, 5, 0]
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    _, before = mixer(torch.randn_like(x), state=start(mixer))
    y, state = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask, state=before)
    assert bool(y.isfinite().all())
    for row, n in enumerate(lengths):
        alone = {"x": before["x"][row : row + 1]}
        if n:
            y_row, alone = mixer(x[row : row + 1, :n], state=alone)
            torch.testing.assert_close(y_row, y[row : row + 1, :n])
        torch.testing.assert_close(state["x"][row : row + 1], alone["x"])
    _, after = mixer(x[:, :1], mask=torch.tensor([[True], [False], [False]]), state=before)
    torch.testing.assert_close(after["x"][1:], before["x"][1:], rtol=0, atol=0)


def test_eigenvalues():
    mixer, _ = build()
    torch.testing.assert_close(
        mixer.dss.eigenvalues(), torch.complex(-mixer.dss.Lambda_real.exp(), mixer.dss.Lambda_imag.exp())
    )
    other, _ = build(imag_exp=False)
    torch.testing.assert_close(other.dss.eigenvalues().imag, other.dss.Lambda_imag)


def test_initialisation_and_widths():
    mixer = GSS(LayerContext(width=128, length=T, depth=2), d_state=512)
    mixer.reset_parameters(layer=0, depth=2)
    assert mixer.to_u.weight.shape == (512, 128)
    assert mixer.dss.C_real.shape == (32, 512)
    assert mixer.dss.C_real.std().item() == pytest.approx(1.0, rel=0.05)
    assert mixer.dss.Lambda_imag.std().item() == pytest.approx(1.0, rel=0.15)
    assert mixer.to_out.weight.std().item() == pytest.approx(512**-0.5 / 2, rel=0.05)
    assert GSS(LayerContext(width=8, length=T), d_hidden=5, expand=2.0).to_gate.weight.shape == (16, 5)


def test_hints():
    mixer, _ = build()
    assert set(mixer.param_overrides()) == {
        f"dss.{n}" for n in ("Lambda_real", "Lambda_imag", "C_real", "C_imag", "param_D")
    }
    assert all(hint.decay is False for hint in mixer.param_overrides().values())
    assert set(mixer.param_overrides()) <= {name for name, _ in mixer.named_parameters()}


def test_state_stays_float32_under_autocast():
    mixer, x = build()
    mixer, x = mixer.float(), x.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, state = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.bfloat16))
    assert state["x"].dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"), [({"d_hidden": 0}, "d_hidden"), ({"expand": 0.01}, "expand"), ({"d_state": 0}, "d_state")]
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        GSS(LayerContext(width=D, length=T), **options)
