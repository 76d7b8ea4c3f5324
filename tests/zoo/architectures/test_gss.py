"""GSS: its widths."""

from zoo.architectures.gss import GSS
from zoo.contract import LayerContext


def test_widths():
    mixer = GSS(LayerContext(width=128, length=13), d_state=512)
    assert mixer.to_u.weight.shape == (512, 128)
    assert mixer.dss.C_real.shape == (32, 512)
    assert GSS(LayerContext(width=8, length=13), d_hidden=5, expand=2.0).to_gate.weight.shape == (16, 5)
