"""The delta rule with softmax attention as its memory, in chunks of C steps.

With P the softmax of a chunk's queries over all keys before each, P₁ of it over the keys before the chunk and P₂ over
its own, strictly lower triangular,

    u = (I + β P₂)^{−1} (v − β P₁ U)

where U is u of all steps before the chunk (Zhong et al. 2025, arXiv:2505.19488).
"""

import torch
from torch import Tensor

from zoo.ops import flops, forms, precision
from zoo.ops.kernel_log import logged
from zoo.ops.softmax_delta import naive
from zoo.ops.step_by_step import finite_or

CHUNK = 64
"""Steps per chunk, at most."""


@forms.computes(naive.softmax_delta_naive)
@logged("softmax_delta")
def softmax_delta(q, k, v, beta, valid=None, state=None):  # type: ignore[no-untyped-def]
    """In float32 at least. On a CPU the naive form decides where a number is not finite."""
    keys, U, seen, wide = naive.start(q, k, v, beta, valid, state)
    T = q.shape[2]
    with precision.no_autocast(q.device):
        Q, K, V, b = (x.to(wide) for x in (q.shape[3] ** -0.5 * q.to(wide), keys, v, beta[..., None]))
        for first in range(0, T, CHUNK):
            U = torch.cat([U, _chunk(slice(first, min(first + CHUNK, T)), Q, K, V, b, seen, U)], dim=2)
    u = finite_or(U, lambda: naive.softmax_delta_naive(q, k, v, beta, valid, state)["u"])
    return naive.Stored(k=keys, u=u, valid=seen)


def _chunk(steps: slice, Q: Tensor, K: Tensor, V: Tensor, b: Tensor, valid: Tensor | None, U: Tensor) -> Tensor:
    """u of these steps, behind U."""
    Q, V, b = (x[:, :, steps] for x in (Q, V, b))
    C, before = Q.shape[2], U.shape[2]
    S = before + C
    seen = torch.ones(C, S, dtype=torch.bool, device=Q.device).tril(before - 1)
    if valid is not None:
        seen = seen & valid[:, :, None, :S]
    P = (Q @ K[:, :, :S].mT).masked_fill(~seen, float("-inf")).softmax(-1)
    P = b * P.masked_fill(~seen.any(-1, keepdim=True), 0)
    u = torch.linalg.solve_triangular(P[..., before:], V - P[..., :before] @ U, upper=False, unitriangular=True)
    flops.count("softmax_delta", u.numel() * C)
    flops.count_backward(u, "softmax_delta", u.numel() * C)
    return u
