"""FLOPs of the work torch's FlopCounterMode cannot see: scans and FFTs. Matrix products it sees; those are not ours.

Ops call `count`; whoever measures opens a `Counter`. Rules, stated once for every op:

- only the useful (naive) work counts, not what a parallel form does on top of it;
- a real multiply-add is 2 FLOPs, a complex one 8 (4 multiplications and 4 additions);
- a real FFT of length N is 5 N log2 N / 2 (half the classical count of a complex one); its pointwise product is
  elementwise, and left out as FlopCounterMode leaves elementwise work out.

The counters are one list for the whole process: autograd runs CUDA's backward pass on threads of its own, which a
thread-local list would miss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor

_active: list[Counter] = []
paused = False
"""Whether what runs is not to be counted: it is done again, or tells what this machine can do."""


class Counter:
    """Sums what ops report while it is open. Counters nest, and each sees everything.

    Example:
        >>> with Counter() as counter:
        ...     count("diagonal_scan", 12)
        >>> counter.by_name
        {'diagonal_scan': 12}
    """

    def __init__(self) -> None:
        self.by_name: dict[str, int] = {}

    @property
    def total(self) -> int:
        """All FLOPs counted so far."""
        return sum(self.by_name.values())

    def __enter__(self) -> Counter:
        _active.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _active.remove(self)


def checkpoint(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`, of which nothing is kept for the backward pass: it is computed again there, uncounted."""
    again = partial(torch.utils.checkpoint.checkpoint, use_reentrant=False)
    return again(function, *args, context_fn=lambda: (nullcontext(), uncounted()))


@contextmanager
def uncounted() -> Iterator[None]:
    """What runs inside is not counted."""
    global paused
    before, paused = paused, True
    try:
        yield
    finally:
        paused = before


def counting() -> bool:
    """Whether a counter is open."""
    return bool(_active)


def count(name: str, flops: int) -> None:
    """Report `flops` done by the op `name`. Does nothing when no counter is open.

    Raises:
        ValueError: less than none were done.
    """
    if flops < 0:
        raise ValueError(f"{name}: {flops} FLOPs")
    for counter in () if paused else _active:
        counter.by_name[name] = counter.by_name.get(name, 0) + flops


def count_backward(y: Tensor, name: str, flops: int) -> None:
    """Report `flops` done by the op `name` when the gradient of its output y goes back through it."""
    if y.requires_grad:
        y.register_hook(lambda _: count(name, flops))


def rfft(length: int) -> int:
    """FLOPs of one real transform of `length`, forward or inverse."""
    return round(2.5 * length * math.log2(length)) if length > 1 else 0
