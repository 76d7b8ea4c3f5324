"""Answers to lm-evaluation-harness as tables of a board: each of its tasks is ranked as a task of the suite is.

An answer's score has two sources of uncertainty. Training is one: the seeds show it, and rows are compared by seeds as
everywhere. The choice of questions is the other: it is the same for all rows, and its standard error stands beside the
table.
"""

import dataclasses
from collections.abc import Sequence

from harness.records.record import Answer, AnswerMetric, Error, Metrics, Record

PRIMARY = ("acc", "exact_match", "bits_per_byte", "acc_norm", "perplexity", "word_perplexity", "byte_perplexity")
"""What a task is ranked by: the first of these that it has, else its first metric."""


def as_tasks(finals: Sequence[Record]) -> list[Record]:
    """For every answer in these records, the record as if it were of a task by the question's name, with that answer
    alone. Where models of several tasks were evaluated, the name says which task they were trained on.
    """
    evaluated = [(record, record.lm_eval) for record in finals if record.lm_eval is not None]
    several = len({record.spec.task_label for record, _ in evaluated}) > 1
    found = []
    for record, known in evaluated:
        for name, answer in known.tasks.items():
            data = record.data.replace(fingerprint=f"{answer.hash} {answer.samples} {answer.fewshot}")
            changes = {"data": data, "metrics": _metrics(answer), "lm_eval": known.replace(tasks={name: answer})}
            found.append(_renamed(record, name, several).replace(**changes))
        for name, why in known.refused.items():
            error, renamed = Error("Unsupported", why), _renamed(record, name, several)
            found.append(renamed.replace(status="unsupported", metrics=Metrics(""), error=error, lm_eval=None))
    return found


def _metrics(answer: Answer) -> Metrics:
    """An answer's scores as those of a task."""
    primary = next((metric for metric in PRIMARY if metric in answer.metrics), next(iter(answer.metrics), ""))
    ranked_by = answer.metrics.get(primary, AnswerMetric(None))
    return Metrics(
        primary=primary,
        also=tuple(metric for metric in answer.metrics if metric != primary),
        higher_is_better=ranked_by.higher_is_better,
        chance=ranked_by.chance,
        unit="bits/byte" if primary == "bits_per_byte" else "",
        test={name: metric.value for name, metric in answer.metrics.items() if metric.value is not None},
    )


def _renamed(record: Record, name: str, several: bool) -> Record:
    """The record under the question's name; a target that ended its training says nothing about its answers."""
    label = f"{name} after {record.spec.task_label}" if several else name
    stop = None if record.spec.stop is None else dataclasses.replace(record.spec.stop, target=None)
    spec = record.spec.replace(task=name, task_label=label, stop=stop)
    return record.replace(run_id=f"{record.run_id}/{name}", spec=spec)


def notes(finals: Sequence[Record]) -> list[str]:
    """How many questions there were, and the largest standard error that their choice leaves."""
    error = standard_error(finals)
    doubt = f"; which ones they are leaves each score a standard error of up to {error:.2g}" if error else ""
    counts = [answer.samples for _, answer in _answers(finals)[:1]]
    return [f"{count:,} questions of lm-evaluation-harness, the same for all rows{doubt}" for count in counts]


def standard_error(finals: Sequence[Record]) -> float:
    """The largest standard error that the choice of questions leaves a score; 0 where none is known.

    Rows share their questions, so it is no part of what separates them; but it is of what separates them from chance.
    """
    metrics = (answer.metrics.get(record.metrics.primary) for record, answer in _answers(finals))
    return max((m.stderr for m in metrics if m is not None and m.stderr is not None), default=0.0)


def _answers(finals: Sequence[Record]) -> list[tuple[Record, Answer]]:
    return [(r, answer) for r in finals if r.lm_eval is not None for answer in r.lm_eval.tasks.values()]
