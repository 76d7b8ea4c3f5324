"""The mesa layer by conjugate gradients, at all steps at once.

G_t x is linear attention with the query x, so a product with every G_t + diag λ is a few matmuls over chunks, and no
G_t is written out but those between chunks (von Oswald et al. 2025, arXiv:2506.05233, section 3). With x_t =
(G_t + diag λ)⁻¹ q_t found, outputs are linear attention with the queries x.

Gradients are the exact solution's: that of x, times (G + diag λ)⁻¹ by conjugate gradients once more, is that of
q − (G + diag λ) x, as G is symmetric. From there on torch goes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops import flops, forms, precision
from zoo.ops.kernel_log import log_kernel
from zoo.ops.linear_attention import linear_attention
from zoo.ops.linear_attention.chunked import segments, split
from zoo.ops.mesa.naive import Memory, mesa_naive, zero
from zoo.ops.step_by_step import finite, step_by_step

CHUNK = 32
"""Steps per chunk, at most: few, as the solver reads a chunk's pairs in every iteration."""


@forms.public
def mesa(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T V"],
    beta: Float[Tensor, "B H T"],
    log_decay: Float[Tensor, "B H T"],
    ridge: Float[Tensor, "H K"],
    state: Memory | None = None,
    *,
    iterations: int = 30,
) -> tuple[Float[Tensor, "B H T V"], Memory]:
    """Outputs in v's dtype and final state of `naive.mesa_naive`, for any T, in float32 at least.

    Args:
        log_decay: ln a_t ≤ 0; −inf forgets all.
        ridge: λ > 0.
        state: what to continue from, G symmetric; None for zero.
        iterations: of the solver at most, which ends where no residual is more than rounding. Its error is at most
            2 ((√κ − 1)/(√κ + 1))^iterations, relative, for a condition number κ. A single step is solved directly.

    Raises:
        ValueError: `iterations` is less than 1.
    """
    if iterations < 1:
        raise ValueError(f"mesa: iterations is {iterations}, expected 1 at least")
    log_kernel("mesa", "conjugate gradients")
    if q.shape[2] == 1:
        return mesa_naive(q, k, v, beta, log_decay, ridge, state)
    with precision.no_autocast(q.device):
        wide = precision.promote(q, k, v, beta, log_decay, ridge, *(state or ()))
        exact: Any = (x.to(wide) for x in (q, k, v, beta, log_decay, ridge, *(state or zero(k, v))))
        o, *after = by_conjugate_gradients(*exact, iterations=iterations)
    if finite(o, *after):
        return o.to(v.dtype), (after[0], after[1])
    return step_by_step(partial(mesa_naive, ridge=ridge), (q, k, v, beta, log_decay), state)


def by_conjugate_gradients(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, ridge: Tensor, G: Tensor, S: Tensor, *, iterations: int
) -> tuple[Float[Tensor, "B H T V"], Float[Tensor, "B H K K"], Float[Tensor, "B H K V"]]:
    """Outputs, and the final G and S."""
    written = beta[..., None] * k
    product = _product(k, written, g, ridge, G)

    def solve(b: Tensor) -> Tensor:
        with precision.no_autocast(b.device):  # which a backward pass may run under
            return conjugate_gradients(product, b, iterations)

    x = solve(q)
    read, G = linear_attention(x, k, written, g, G.mT)  # which reads its state transposed
    residual = q - read - ridge[:, None] * x
    if residual.requires_grad:
        residual.register_hook(solve)
        x = x + (residual - residual.detach())
    o, S = linear_attention(x, written, v, g, S)
    return o, G.mT, S


@torch.no_grad()
def conjugate_gradients(
    product: Callable[[Tensor], Tensor], b: Float[Tensor, "B H T K"], iterations: int
) -> Float[Tensor, "B H T K"]:
    """The x of which `product` makes b, for each step by itself (Hestenes and Stiefel 1952)."""
    x, r, p, rr = torch.zeros_like(b), b, b, _dot(b, b)
    least, floor = torch.finfo(b.dtype).tiny, torch.finfo(b.dtype).eps ** 2 * rr
    for _ in range(iterations):
        if not (b.is_meta or flops.counting()) and bool((rr <= floor).all()):  # FLOPs are those of all iterations
            break
        through = product(p)
        rate = rr / _dot(p, through).clamp(min=least)
        x, r = x + rate * p, r - rate * through
        before, rr = rr.clamp(min=least), _dot(r, r)
        p = r + rr / before * p
    return x


def _dot(a: Float[Tensor, "B H T K"], b: Float[Tensor, "B H T K"]) -> Float[Tensor, "B H T 1"]:
    return (a * b).sum(-1, keepdim=True)


@torch.no_grad()
def _product(
    k: Tensor, written: Tensor, g: Tensor, ridge: Tensor, G: Tensor
) -> Callable[[Float[Tensor, "B H T K"]], Float[Tensor, "B H T K"]]:
    """x ↦ (G_t + diag λ) x_t at every step; `written` is β k."""
    T, C = k.shape[2], min(CHUNK, k.shape[2])
    K, W, g = split(k, C), split(written, C), split(g[..., None], C)
    within, from_start = segments(g).squeeze(-1).exp(), g.cumsum(3).exp()
    before = []
    for n, added in enumerate((K.mT @ (within[..., -1, :, None] * W)).unbind(2)):
        before.append(G)
        G = from_start[:, :, n, -1:] * G + added
    states, ridge = torch.stack(before, dim=2), ridge[:, None]

    def product(x: Tensor) -> Tensor:
        X = split(x, C)
        read = from_start * (X @ states) + (within * (X @ K.mT)) @ W
        return read.flatten(2, 3)[:, :, :T] + ridge * x

    return product
