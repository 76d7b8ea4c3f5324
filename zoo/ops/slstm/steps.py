"""The sLSTM cell step by step: compiled where numba serves, and otherwise as in `naive.py`."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops import forms, precision
from zoo.ops.kernel_log import log_kernel
from zoo.ops.slstm import naive
from zoo.ops.slstm.naive import SLSTMState


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
        before = naive.init_state(i) if state is None else state
        i, f, z, o, R, b, h, c, n, m = (x.to(dtype) for x in (i, f, z, o, R, b, *before))
        if forms.supports(i):
            from zoo.ops.cpu.slstm import CompiledSLSTM  # loads numba

            log_kernel("slstm", "compiled loop")
            y, *after = CompiledSLSTM.apply(i, f, z, o, R, b, h, c, n, m, mask)
            h, c, n, m = after
            return y, (h, c, n, m)
        log_kernel("slstm", "steps")
        return naive.slstm(i, f, z, o, R, b, (h, c, n, m), mask)
