"""The selective scan a chunk of time at a time, through the diagonal scan.

All states of a sequence are T·D·N numbers, N times what any other tensor of the layer holds. So the states of one chunk
are made at a time, and made again for its backward pass.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from zoo.ops import flops
from zoo.ops.diagonal_scan.chunked import scan


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, h: Tensor, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """As `naive.selective_scan`, all in one dtype."""
    outputs = []
    for parts in zip(*(x.split(chunk, dim=1) for x in (u, delta, B, C)), strict=True):
        if torch.is_grad_enabled() and not (u.is_meta or flops.counting()):  # work done twice counts once
            y, h = checkpoint(_states, A, h, *parts, use_reentrant=False, preserve_rng_state=False)
        else:
            y, h = _states(A, h, *parts)
        outputs.append(y)
    y = torch.cat(outputs, dim=1)
    return (y if D is None else y + D * u), h


def _states(A: Tensor, h: Tensor, u: Tensor, delta: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """y without its skip, and the last state."""
    states = scan(torch.exp(delta[..., None] * A), (delta * u)[..., None] * B[:, :, None], h)
    y = (states * C[:, :, None]).sum(-1)
    # As matrix products: y of the states and C forward; backward the gradients of C, of B, and of Δ u.
    flops.count("selective_scan", 2 * states.numel())
    flops.count_backward(y, "selective_scan", 6 * states.numel())
    return y, states[:, -1].clone()  # a view would keep every state
