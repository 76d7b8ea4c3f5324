"""The result of a gate, and how differences are measured."""

import math

from torch import Tensor

from harness.records.record import Gate


def result(measured: float, limit: float, about: str) -> Gate:
    """What a gate measured against its limit; NaN does not pass."""
    return Gate(bool(measured <= limit), measured, limit, about)


def worst(*gates: Gate) -> Gate:
    """The one that is furthest over its limit, or nearest to it."""

    def excess(found: Gate) -> float:
        assert found.measured is not None
        measured = nan_to_inf(found.measured)
        return measured / found.limit if found.limit else math.inf if measured > 0 else 0.0

    return max(gates, key=excess)


def relative(a: Tensor, b: Tensor) -> float:
    """max |a − b| / max |b|; infinite where shapes differ or one is NaN and the other not."""
    if a.shape != b.shape:
        return math.inf
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    if not a.numel():
        return 0.0
    scale = b.nan_to_num(0, 0, 0).abs().max().clamp(min=1e-6)
    return nan_to_inf(float((a - b).masked_fill(a == b, 0).abs().max() / scale))


def nan_to_inf(value: float) -> float:
    return math.inf if math.isnan(value) else value
