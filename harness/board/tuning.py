"""How the rows of one task were tuned: at what cost, how near an edge, and what more would bring."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.board.model import TaskBoard
from harness.plan.trials import objective
from harness.records.record import Record
from harness.table.comparable import by_architecture, grouped
from harness.table.effort import dimensions, space, tuned_values
from harness.table.rows import Row
from harness.units import clock, short

EDGE = 0.05
"""A value this near to an end of its range, as a fraction of the (logarithmic) range, counts as at its edge."""
WORDS = {"lr": "learning rate", "weight_decay": "weight decay"}


def notes(rows: Sequence[Row], finals: Sequence[Record], trials: Sequence[Record]) -> list[str]:
    """How many trials, where, what they cost, and which of the best values lie at an edge."""
    if not trials:
        return []
    found, dims = [], dimensions(trials)
    spaces = {name: space(own, dims) for name, own in by_architecture(trials).items()}
    if counts := [row.trials or 0 for row in rows if row.ranked]:
        splits = sorted({str(r.spec.evaluate.split or "valid") for r in trials})
        split = "the validation split" if splits == ["valid"] else f"the split {', '.join(splits)}"
        found.append(f"tuning: {max(counts)} trials per architecture, chosen on {split}")
    ran = [r for r in trials if r.status != "unsupported"]
    used, failed = [r.budget.used for r in ran], sum(r.status != "ok" for r in ran)
    cost = f"{short(sum(u.flops for u in used), 'FLOP')} and {clock(math.fsum(u.seconds for u in used))}"
    lost = f", {failed} of them failed" if failed else ""
    found += [*_searched(trials, spaces), f"tuning cost: {len(ran)} trials{lost}, {cost} of training in all"]
    return found + _edges(rows, finals, spaces)


def _searched(trials: Sequence[Record], spaces: Mapping[str, dict[str, Any]]) -> list[str]:
    """The space of a sampler, or of a grid of more than learning rates, if all architectures share it."""
    first, *others = spaces.values()
    samplers = sorted({r.spec.tuning.sampler for r in trials if r.spec.tuning is not None})
    if any(other != first for other in others) or not (samplers or len(first) > 1):
        return []
    values = "; ".join(f"{name} {_range(own)}" for name, own in first.items())
    return [f"searched by {', '.join(samplers) or 'grid'}: {values}"]


def _range(values: Any) -> str:
    if isinstance(values, list):
        return ", ".join(f"{value:g}" for value in values)
    return f"{values['low']:g} to {values['high']:g}{' (log)' if values['log'] else ''}"


def _edges(rows: Sequence[Row], finals: Sequence[Record], spaces: Mapping[str, dict[str, Any]]) -> list[str]:
    runs, found = by_architecture(finals), []
    for name in sorted(row.architecture for row in rows if row.scores):
        for dimension, values in spaces.get(name, {}).items():
            best, kind = tuned_values(runs[name], dimension), "grid" if isinstance(values, list) else "range"
            if len(best) == 1 and at_edge(best[0], values):
                edge = f"best {WORDS.get(dimension, dimension)} at the edge of its {kind}"
                found.append((edge, f"{name} {best[0]:g}"))
    return [f"{edge}: {', '.join(names)}" for edge, names in grouped(found).items()]


def at_edge(value: float, values: Any) -> bool:
    """Whether a value is an end of a list of at least two, or within `EDGE` of an end of a range."""
    if isinstance(values, list):
        return len(values) > 1 and value in (min(values), max(values))
    scale = math.log if values["log"] else float
    low, high = scale(values["low"]), scale(values["high"])
    return not EDGE < (scale(value) - low) / (high - low) < 1 - EDGE


def best_of(board: TaskBoard, trials: Sequence[Record]) -> dict[str, list[float]]:
    """By ranked architecture, the expected best score on the tuning split of 1, 2, … of its trials; from 3 trials on.

    A trial that failed counts as the worst any trial of the task scored.
    """
    own, higher = by_architecture(trials), board.higher_is_better
    costs = {row.architecture: list(map(objective, own.get(row.architecture, []))) for row in board.ranked}
    worst = max((cost for values in costs.values() for cost in values if math.isfinite(cost)), default=None)
    return {
        name: expected_best([board.cost(min(cost, worst)) for cost in values], higher_is_better=higher)
        for name, values in costs.items()
        if worst is not None and len(values) >= 3
    }


def expected_best(values: Sequence[float], *, higher_is_better: bool) -> list[float]:
    """The expected best of k of n trials, for k = 1 … n, all choices of k equally likely.

    Expected validation performance (Dodge et al. 2019, arXiv:1909.03004), drawn without replacement, which makes it
    unbiased where their plug-in estimate is not (Tang et al. 2020, arXiv:2004.13705). With values in ascending order
    v₁ ≤ … ≤ vₙ the i-th is the largest of k with probability C(i−1, k−1) / C(n, k).
    """
    sign = 1.0 if higher_is_better else -1.0
    ordered, n = sorted(sign * value for value in values), len(values)
    return [
        sign * math.fsum(math.comb(i, k - 1) / math.comb(n, k) * value for i, value in enumerate(ordered))
        for k in range(1, n + 1)
    ]
