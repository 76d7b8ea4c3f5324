"""Judge a run by every gate that applies."""

import math
from collections.abc import Callable, Iterable

import torch

from harness.gates.measure import result
from harness.gates.registry import gates
from harness.gates.subject import Subject
from harness.isolation.beat import beat
from harness.records.record import Eligibility, Gate


def judge(subject: Subject, skipped: Iterable[str] = ()) -> Eligibility:
    """Check every gate that applies to a model but the `skipped` ones; it may be ranked only if it passes them all.

    The model is left in the mode it was in. What it takes: some hundred passes over two to eight examples in float64,
    and up to six over 256; seconds for a small model.
    """
    left_out = tuple(sorted({*skipped}))
    training, found = subject.model.training, subject.results
    subject.model.eval()
    try:
        for name, known in gates().items():
            if name not in left_out and known.applies(subject.model.role, matched=subject.mismatch is not None):
                found[name] = _checked(known.check, subject)
                beat()
    finally:
        subject.model.train(training)
    return Eligibility(all(one.passed for one in found.values()), found, left_out)


def _checked(check: Callable[[Subject], Gate], subject: Subject) -> Gate:
    """The result of a gate; a model that cannot be judged has not passed."""
    try:
        with torch.no_grad():
            return check(subject)
    except Exception as error:  # code of others
        return result(math.inf, 0.0, f"judging it raises {type(error).__name__}: {' '.join(str(error).split())[:200]}")
