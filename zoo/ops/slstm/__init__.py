"""The sLSTM cell of xLSTM: `slstm`, compiled where it can be, and `slstm_naive` as the equations read."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops import forms, precision
from zoo.ops.slstm.naive import LOWEST, SLSTMState, init_state
from zoo.ops.slstm.naive import slstm as slstm_naive

__all__ = ["LOWEST", "init_state", "slstm", "slstm_naive"]


@forms.falls_back
def slstm(
    i: Float[Tensor, "H B T d"],
    f: Float[Tensor, "H B T d"],
    z: Float[Tensor, "H B T d"],
    o: Float[Tensor, "H B T d"],
    R: Float[Tensor, "H 4 d d"],
    b: Float[Tensor, "H 4 d"],
    state: SLSTMState | None = None,
    mask: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B T H d"], SLSTMState]:
    """See `naive.slstm`. In float32 at least, autocast or not."""
    with precision.no_autocast(i.device):
        dtype = precision.promote(i, f, z, o, R, b, *(state or ()))
        before = init_state(i) if state is None else state
        i, f, z, o, R, b, h, c, n, m = (x.to(dtype) for x in (i, f, z, o, R, b, *before))
        return (forms.choose("slstm", i, R) or slstm_naive)(i, f, z, o, R, b, (h, c, n, m), mask)
