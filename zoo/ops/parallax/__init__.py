"""Softmax attention with a correction by the covariance of keys and values: in blocks of queries."""

import torch
from torch import Tensor

from zoo.ops import forms, precision
from zoo.ops.kernel_log import logged
from zoo.ops.linear_attention.naive import check_shared
from zoo.ops.parallax.naive import parallax as parallax_naive
from zoo.ops.step_by_step import finite_or

__all__ = ["parallax", "parallax_naive"]

BLOCK = 128
"""Queries in a block, which read no keys behind its last one."""


@forms.computes(parallax_naive)
@logged("parallax")
def parallax(q, r, k, v, *, visible=None):  # type: ignore[no-untyped-def]
    """In float32 at least. On a CPU the naive form decides where a number is not finite.

    Raises:
        ValueError: heads of q do not share those of k and v evenly.
    """
    for x in (k, v):
        check_shared("parallax", q, x)
    (T, S), wide = (q.shape[2], k.shape[2]), precision.promote(q, r, k, v)
    with precision.no_autocast(q.device):
        exact = [x.to(wide) for x in (q, r, k, v)]

        def block(first: int, last: int) -> Tensor:
            Q, R = (x[:, :, first:last] for x in exact[:2])
            K, V = (x[:, :, : max(0, S - T + last)] for x in exact[2:])
            seen = visible if visible is None or visible.shape[2] == 1 else visible[:, :, first:last]
            return parallax_naive(Q, R, K, V, visible=None if seen is None else seen[..., : K.shape[2]])

        parts = [block(first, min(first + BLOCK, T)) for first in range(0, T, BLOCK)]
        y = torch.cat(parts, dim=2).to(v.dtype)
        return finite_or(y, lambda: parallax_naive(*exact, visible=visible).to(v.dtype))
