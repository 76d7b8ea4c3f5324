"""The causal convolution with a few taps per channel, however long the sequence."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops import forms
from zoo.ops.precision import no_autocast, promote
from zoo.ops.short_convolution.naive import Unit
from zoo.ops.short_convolution.naive import short_convolution as short_convolution_naive

__all__ = ["Unit", "short_convolution", "short_convolution_naive"]


@forms.computes(short_convolution_naive)
def short_convolution(x, w, bias=None, before=None, mask=None, *, silu=False, unit=None, narrow=False):  # type: ignore[no-untyped-def]
    """Float32 at least, autocast or not.

    Raises:
        ValueError: the channels are not as many heads as `unit` has lengths.
    """
    (B, T, D), W, dtype = x.shape, w.shape[-1], promote(x, w, bias)
    if unit is not None and D % max(1, len(unit.scales)):
        raise ValueError(f"short_convolution: {D} channels are no {len(unit.scales)} heads, as unit has lengths")
    with no_autocast(x.device):  # W multiply-adds a channel cost little; unit vectors magnify rounding
        x = x if mask is None else x.masked_fill(~mask[..., None], 0)
        w = w.to(dtype).resolve_neg()  # which conv1d does not do itself
        bias = w.new_zeros(D) if bias is None else bias.to(dtype).resolve_neg()
        decoding = before is not None and T == 1
        before = w.new_zeros(B, W - 1, D) if before is None else before.to(dtype)
        form = None if decoding else forms.choose("short_convolution", x, w, bias, before)
        y = (form or _conv1d)(x, w, bias, before, silu, unit, narrow)
        return y.to(x.dtype) if narrow else y


def _conv1d(
    x: Tensor, w: Tensor, bias: Tensor, before: Tensor, silu: bool, unit: Unit | None, narrow: bool
) -> Float[Tensor, "B T D"]:
    if not x.numel():  # conv1d refuses no groups
        return x.to(w.dtype)
    y = F.conv1d(torch.cat([before, x], dim=1).mT, w[:, None], bias, groups=len(w)).mT
    y = F.silu(y) if silu else y
    return y if unit is None else unit.normed(y)
