"""Recurrences step by step, where chunks cannot follow: NaN and infinities stay where the equations put them.

A chunk multiplies what is masked by 0, and 0 · ∞ is NaN, at earlier steps too. So an op looks at what its fast form
returns, and where that is not finite the naive form decides.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Past = TypeVar("Past")

SPAN = 64
"""Steps between two states that are kept for the backward pass."""


def finite(*results: Tensor) -> bool:
    """Whether none of these holds NaN or an infinity. On the meta device, where nobody can tell, they do not."""
    sums = [x.detach().sum(dtype=torch.float32 if x.dtype is torch.float16 else None) for x in results]
    return all(total.is_meta or bool(total.isfinite()) for total in sums)


def finite_or(y: Tensor, naive: Callable[[], Tensor]) -> Tensor:
    """y of a transform, which adds up all steps; on a CPU, what the naive form has where y is not finite."""
    return y if y.device.type != "cpu" or finite(y) else naive()


def step_by_step(
    naive: Callable[..., tuple[Tensor, Past]], inputs: Sequence[Tensor | None], state: Past | None
) -> tuple[Tensor, Past]:
    """Outputs and last state of `naive(*inputs, state=state)`, of inputs (B, H, T, …), in the memory of chunks."""
    outputs, spans = [], [None if x is None else x.split(SPAN, dim=2) for x in inputs]
    for n in range(len(spans[0] or ())):
        span = [None if x is None else x[n] for x in spans]
        o, state = checkpoint(naive, *span, state=state, use_reentrant=False, preserve_rng_state=False)
        outputs.append(o)
    assert state is not None
    return torch.cat(outputs, dim=2), state
