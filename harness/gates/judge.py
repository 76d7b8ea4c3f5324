"""Every gate that applies to a run, in the order of `harness.gates.GATES`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch

from harness.gates import CAUSAL, GATES, effort, flow, knowledge, scores, size
from harness.gates.gate import gate, worst
from harness.gates.subject import Precise, Subject
from harness.records.record import Gate


def gates(subject: Subject, skipped: Iterable[str] = ()) -> dict[str, Gate]:
    """Every gate that applies to the role and budget, by name: passed, measured, limit, about.

    The model is left in the mode it was in. What it takes: some hundred passes over two to eight examples in float64,
    and up to six over 256; seconds for a small model.
    """
    asked = _applying(subject, {*skipped})
    training, found = subject.model.training, {}
    subject.model.eval()
    try:
        for name, judge in asked.items():
            with torch.no_grad():
                found[name] = _judged(judge)
    finally:
        subject.model.train(training)
    return {name: found[name] for name in GATES if name in found}


def _judged(judge: Callable[[], Gate]) -> Gate:
    """A model that cannot be judged has not passed."""
    try:
        return judge()
    except Exception as error:  # code of others
        return gate(math.inf, 0.0, f"judging it raises {type(error).__name__}: {' '.join(str(error).split())[:200]}")


def _applying(subject: Subject, skipped: set[str]) -> dict[str, Callable[[], Gate]]:
    """In the order they are asked: those that must see the model before others touch it go first."""
    precise: list[Precise] = []
    alone: list[Gate] = []

    def copy() -> Precise:
        if not precise:
            with torch.no_grad():
                precise.append(Precise.of(subject.model, subject.batch(2)))
        return precise[0]

    def weights_alone() -> Gate:
        if not alone:
            alone.append(scores.weights_alone(subject))
        return alone[0]

    def declared_size() -> Gate:
        return size.declared_size(subject, shared_only=subject.build is not None and weights_alone().passed)

    watched: dict[str, Callable[[], Gate]] = {
        "evaluation_frozen": lambda: scores.evaluation_frozen(subject),
        "data_order": lambda: effort.data_order(subject),
        "test_overlap": lambda: knowledge.test_overlap(subject),
    }
    found = watched if subject.watch is not None else {}
    found["repeatable"] = lambda: scores.repeatable(subject)
    if subject.build is not None:
        found |= {"weights_alone": weights_alone, "untrained": lambda: knowledge.untrained(subject)}
    found |= {
        "normalised": lambda: scores.normalised(subject),
        "answers_unseen": lambda: scores.answers_unseen(subject),
        "batch_size": lambda: scores.batch_size(subject, copy()),
        "batch_neighbours": lambda: scores.batch_neighbours(subject, copy()),
        "held_out_gap": lambda: knowledge.held_out_gap(subject),
    }
    if subject.model.role in CAUSAL:
        found |= {
            "causal": lambda: worst(flow.causal(subject, copy()), *flow.as_scored(subject)),
            "gradient_leak": lambda: flow.gradient_leak(subject, copy()),
        }
    if subject.match is not None and subject.size is not None and subject.size.mismatch is not None:
        found["matched_size"] = lambda: size.matched_size(subject)
    if subject.watch is not None:
        found |= {"declared_size": declared_size, "within_budget": lambda: effort.within_budget(subject)}
    return {name: judge for name, judge in found.items() if name not in skipped}
