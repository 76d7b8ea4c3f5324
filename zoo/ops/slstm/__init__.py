"""The sLSTM cell of xLSTM: `slstm`, compiled where it can be, and `slstm_naive` as the equations read."""

from zoo.ops import forms, precision
from zoo.ops.slstm.naive import LOWEST, init_state
from zoo.ops.slstm.naive import slstm as slstm_naive

__all__ = ["LOWEST", "init_state", "slstm", "slstm_naive"]


@forms.computes(slstm_naive)
def slstm(i, f, z, o, R, b, state=None, mask=None):  # type: ignore[no-untyped-def]
    """In float32 at least, autocast or not."""
    with precision.no_autocast(i.device):
        dtype = precision.promote(i, f, z, o, R, b, *(state or ()))
        i, f, z, o, R, b = (x.to(dtype) for x in (i, f, z, o, R, b))
        h, c, n, m = init_state(i) if state is None else (x.to(dtype) for x in state)
        form = forms.choose("slstm", i, f, z, o, R, b, h, c, n, m) or slstm_naive
        return form(i, f, z, o, R, b, (h, c, n, m), mask)
