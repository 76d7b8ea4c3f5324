"""The WKV operator of RWKV-4: attention whose weights decay exponentially with distance, per channel."""

from zoo.ops import forms
from zoo.ops.precision import no_autocast, promote
from zoo.ops.wkv4.naive import WKVState, init_state
from zoo.ops.wkv4.naive import wkv as wkv_naive
from zoo.ops.wkv4.scan import wkv as wkv_by_scan

__all__ = ["WKVState", "init_state", "wkv", "wkv_naive"]


@forms.computes(wkv_naive)
def wkv(w, u, k, v, state=None, mask=None):  # type: ignore[no-untyped-def]
    """In float32 at least, autocast or not; y has v's dtype, the state stays wide.

    Counts its two recurrences: 4 FLOPs per element of k forward and 8 backward.
    """
    dtype = promote(w, u, k, v, *(() if state is None else (state[name] for name in "pqo")))
    if mask is not None:  # whatever stands there, NaN too, reaches no output and no gradient
        k, v = (x.masked_fill(~mask[..., None], 0) for x in (k, v))
    with no_autocast(k.device):
        before = init_state(k.shape[0], k.shape[2], device=k.device, dtype=dtype) if state is None else state
        w, u, k, x, p, q, o = (x.to(dtype) for x in (w, u, k, v, before["p"], before["q"], before["o"]))
        y, p, q, o = (forms.choose("wkv4", w, u, k, x, p, q, o) or wkv_by_scan)(w, u, k, x, p, q, o, mask)
    return y.to(v.dtype), {"p": p, "q": q, "o": o}
