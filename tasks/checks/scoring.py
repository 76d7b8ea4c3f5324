"""What answers score: right ones best, baselines below them, in batches of any size."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tasks.base import SPLITS, Baseline, Task, Totals, add_totals
from tasks.checks.randomness import global_states, randomness
from tasks.checks.subject import Subject, rows
from zoo.check_result import CheckResult, failed, skipped
from zoo.types import Batch

if TYPE_CHECKING:
    from torch import Tensor


def check_metric(subject: Subject) -> CheckResult:
    """Its name is among the scores, chance is finite, and right answers score better than chance and wrong answers."""
    metric, task = subject.task.metric, subject.task
    if not isinstance(metric.higher_is_better, bool):
        return failed("metric", f"higher_is_better must be True or False, not {metric.higher_is_better!r}")
    if not isinstance(metric.chance, (int, float)) or not math.isfinite(metric.chance):
        return failed("metric", f"chance must be a finite number, not {metric.chance!r}")
    if subject.missing:
        return skipped("metric", subject.missing)
    right = _score(subject, _right)
    if metric.name not in right:
        return failed("metric", f"{metric.name!r} is not among the scores that totals returns: {', '.join(right)}")
    wrong = _score(subject, _wrong)
    best, worst = right[metric.name], wrong[metric.name]
    if not all(map(math.isfinite, (best, worst, right.get("loss", 0.0)))):
        return failed("metric", f"right answers score {best:g}, wrong ones {worst:g}: not finite")
    for what, value in (("wrong answers", worst), ("chance", metric.chance)):
        if task.shape.outputs > 1 and not _better(task, best, value):
            higher = "higher" if metric.higher_is_better else "lower"
            note = f"right answers are no better than {what}, though {higher} is better; limit: {what}"
            return CheckResult("metric", "failed", best, value, note)
    return CheckResult("metric", "passed", best, metric.chance, f"{metric.name} of right answers; limit: chance")


def check_evaluation(subject: Subject) -> CheckResult:
    """Batches of any size give the same examples, each once, and totals that add up to the same scores."""
    if subject.missing:
        return skipped("evaluation", subject.missing)
    task = subject.task
    for split in SPLITS[1:]:
        for limit in (50, 103):
            total = task.count(split)
            expected = limit if total is None else min(limit, total)
            one, other = (
                [row for batch in task.evaluation(split, size=size, limit=limit) for row in rows(batch)]
                for size in (7, 64)
            )
            if one != other:
                return failed("evaluation", f"{split}: batches of 7 give other examples than batches of 64")
            if len(one) != expected:
                return CheckResult("evaluation", "failed", len(one), expected, f"examples of {split} at limit {limit}")
    few = min(20, subject.limit)
    whole, parts = (
        _score(subject, _noise, list(task.evaluation("test", size=size, limit=few))) for size in (min(few, 10), 3)
    )
    for name, value in whole.items():
        if not math.isclose(value, parts[name], rel_tol=1e-4, abs_tol=1e-6):
            return CheckResult("evaluation", "failed", parts[name], value, f"{name} depends on the size of the batches")
    return CheckResult("evaluation", "passed")


def check_baselines(subject: Subject) -> CheckResult:
    """At least one; all worse than right answers, which score the best there is; a constant answer beats none."""
    if subject.missing:
        return skipped("baselines", subject.missing)
    task, metric = subject.task, subject.task.metric
    with randomness(2) as before:
        found = task.baselines(subject.limit)
        if global_states() != before:
            return failed("baselines", "global random numbers (random, numpy or torch) are drawn or seeded")
    if not found:
        return failed("baselines", "none: without one nobody can tell when a score means nothing")
    if len({baseline.name for baseline in found}) < len(found):
        return failed("baselines", "two have the same name")
    best = _score(subject, _right)[metric.name]
    if best not in ((1.0, 100.0) if metric.higher_is_better else (0.0,)):
        wanted = "1 (or 100)" if metric.higher_is_better else "0"
        return CheckResult("baselines", "failed", best, note=f"right answers should score {wanted}, the best there is")
    for baseline in found:
        problem = _implausible(task, baseline, best)
        if problem:
            return CheckResult("baselines", "failed", baseline.value, best, f"{baseline.name}: {problem}")
    strongest = (max if metric.higher_is_better else min)(found, key=lambda baseline: baseline.value)
    constant = _score(subject, _constant(subject))[metric.name]
    room = abs(best - strongest.value) * 2 / math.sqrt(len(task.evaluation_ids("test", subject.limit)))
    limit = strongest.value + (room if metric.higher_is_better else -room)
    if _better(task, constant, limit):
        note = f"the commonest training answers beat every baseline ({strongest.name}: {strongest.value:.3g})"
        return CheckResult("baselines", "failed", constant, limit, note)
    return CheckResult("baselines", "passed", strongest.value, best, f"{strongest.name}; limit: right answers")


Answer = Callable[[Task, Batch], "tuple[Tensor, Sequence[Sequence[int]]]"]
"""From a batch to logits, and to written answers for tasks that score these."""


def _score(subject: Subject, answer: Answer, batches: list[Batch] | None = None) -> dict[str, float]:
    """Scores of answers to the test examples, those of written answers among them."""
    task = subject.task
    logit_totals: Totals = {}
    written_totals: Totals = {}
    for batch in subject.test if batches is None else batches:
        logits, written = answer(task, batch)
        logit_totals = add_totals(logit_totals, task.totals(logits, batch))
        if task.decoding is not None:
            written_totals = add_totals(written_totals, task.decoded(written, batch))
    return task.scores({**logit_totals, **written_totals})


def _right(task: Task, batch: Batch) -> tuple[Tensor, list[list[int]]]:
    return _certain(batch.targets, task.shape.outputs), _written(task, batch)


def _wrong(task: Task, batch: Batch) -> tuple[Tensor, list[list[int]]]:
    outputs = task.shape.outputs
    return _certain((batch.targets + 1) % outputs, outputs), [[] for _ in range(len(batch))]


def _noise(task: Task, batch: Batch) -> tuple[Tensor, list[list[int]]]:
    """Logits that depend on the example alone; right answers for every other example, by its content."""
    import torch

    places = torch.arange(task.shape.outputs) + 1.0
    inputs = batch.inputs.double().flatten(1).sum(1).view(-1, *[1] * batch.targets.dim())
    logits = torch.sin(places * (batch.targets[..., None] + 1.0) + inputs).float()
    return logits, [text if sum(text) % 2 else text[:1] for text in _written(task, batch)]


def _certain(targets: Tensor, outputs: int) -> Tensor:
    """Logits that leave no doubt."""
    import torch

    logits = torch.zeros(*targets.shape, outputs)
    return logits.scatter_(-1, targets[..., None], 1e4)


def _written(task: Task, batch: Batch) -> list[list[int]]:
    """The targets as a decoder would write them, without the stop token."""
    if task.decoding is None:
        return []
    counted = batch.targets == batch.targets if batch.counted is None else batch.counted
    rows = [target[count].tolist() for target, count in zip(batch.targets, counted, strict=True)]
    return [row[: row.index(task.decoding.stop)] if task.decoding.stop in row else row for row in rows]


def _constant(subject: Subject) -> Answer:
    """Answers that ignore the question: how often each is right in training; in writing, the commonest one."""
    import torch

    task = subject.task
    seen = task.examples("train", task.evaluation_ids("train", 4 * subject.limit), 0).tensors()
    counted = seen.targets == seen.targets if seen.counted is None else seen.counted
    often = torch.bincount(seen.targets[counted], minlength=task.shape.outputs) + 0.5
    logits = (often / often.sum()).log()
    common = Counter(map(tuple, _written(task, seen))).most_common(1)

    def answer(task: Task, batch: Batch) -> tuple[Tensor, Sequence[Sequence[int]]]:
        written = [common[0][0]] * len(batch) if common else []
        return logits.expand(*batch.targets.shape, -1), written

    return answer


def _better(task: Task, one: float, other: float) -> bool:
    return one > other if task.metric.higher_is_better else one < other


def _implausible(task: Task, baseline: Baseline, best: float) -> str:
    """What is wrong with a baseline's value, beside the score of right answers."""
    if not isinstance(baseline.value, (int, float)) or not math.isfinite(baseline.value):
        return "not a finite number"
    if not _better(task, best, baseline.value):
        return "as good as right answers, or better; limit: right answers"
    if task.metric.higher_is_better and baseline.value < -best:
        return f"not on the metric's range, from {-best:g} to {best:g}"
    return ""
