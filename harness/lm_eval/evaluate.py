"""A language model asked the questions of lm-evaluation-harness, and its answers as a record keeps them."""

import hashlib
import io
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from harness.errors import UserError
from harness.lm_eval.isolation import isolated
from harness.lm_eval.load_tasks import Report, import_lm_eval, load_tasks, set_fewshot
from harness.records.parts import Part
from harness.records.record import Answer, AnswerMetric

BOOTSTRAP = 1000
"""Resamples behind a standard error that has no formula (perplexity): it is right within some 2%, and repeatable."""


@dataclass(frozen=True)
class Evaluation(Part):
    """What a model answered to some tasks."""

    package: str
    """lm_eval's version."""
    seed: int
    limit: float | None
    max_length: int | None
    seconds: float
    tasks: dict[str, Answer]
    groups: dict[str, dict[str, Any]]
    """By name, `tasks` and, where the group says how to aggregate, `metrics`."""


def evaluate(
    model: Any,
    names: Sequence[str],
    *,
    limit: float | None = None,
    fewshot: int | None = None,
    include: Path | None = None,
    data: Path | None = None,
    max_length: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    report: Report = lambda text: None,
) -> Evaluation:
    """Ask a model the questions of every task in `names`.

    Args:
        model: a `zoo.contract.Model` with a tokenizer, or any `lm_eval` LM.
        names: tasks, groups or tags: ours (`questions.known`), lm_eval's, and those of YAML files in `include`, whose
            code is run; without `hf:` before one of them the network is not used.
        limit: the first so many documents of each task, or that fraction of them if below 1.
        fewshot: answered questions before each; None as the task says. A task that allows none keeps to that.
        data: the folder with the files of the tasks `local_*`; None leaves `ZOOBENCH_QUESTIONS` as it is.
        max_length, batch_size: of a Model, as `Zoobench` takes them.
        seed: of few-shot examples and of sampled generations.
        report: called with what is being done.

    Raises:
        UserError: lm_eval is absent, a name is unknown, a task's data cannot be had or are damaged, an argument is out
            of range, or the model cannot be asked.
    """
    lm_eval = import_lm_eval()
    from harness.lm_eval.adapter import Zoobench

    if limit is not None and not (0 < limit < 1 or (limit >= 1 and limit == int(limit))):
        raise UserError(f"limit must be a whole number of documents, or a fraction between 0 and 1, got {limit:g}")
    if fewshot is not None and fewshot < 0:
        raise UserError(f"fewshot must be 0 or more, got {fewshot}")
    began = time.perf_counter()
    with isolated(data, seed, report, hub=_hub(names)):
        loaded = load_tasks(names, include, report)
        set_fewshot(loaded.tasks, fewshot, seed)
        report(f"asking {', '.join(loaded.tasks)}")
        task_dict = {"tasks": loaded.tasks, "groups": loaded.groups}
        try:
            lm = model
            if not isinstance(model, lm_eval.api.model.LM):
                lm = Zoobench(model=model, max_length=max_length, batch_size=batch_size)
            with redirect_stdout(io.StringIO()):
                results = lm_eval.evaluate(lm=lm, task_dict=task_dict, limit=limit, bootstrap_iters=BOOTSTRAP)
        except (ValueError, OverflowError) as error:  # Unsupported, TokenizerError; a perplexity beyond all numbers
            raise UserError(f"the model cannot be asked: {error}") from error
    return Evaluation(
        package=lm_eval.__version__,
        seed=seed,
        limit=limit,
        max_length=getattr(lm, "max_length", None),
        seconds=round(time.perf_counter() - began, 3),
        tasks={name: _answer(name, results, loaded.requested_as[name]) for name in loaded.tasks},
        groups={name: _group(name, results) for name in loaded.groups},
    )


def check_tasks(names: Sequence[str], *, include: Path | None = None, data: Path | None = None) -> list[str]:
    """The names of all tasks, groups taken apart; a UserError, as `evaluate` raises, where one cannot be had."""
    import_lm_eval()
    with isolated(data, 0, lambda text: None, hub=_hub(names)):
        return list(load_tasks(names, include, lambda text: None).tasks)


def _hub(names: Sequence[str]) -> bool:
    """Whether a name says that the hub may be asked."""
    return any(name.startswith("hf:") for name in names)


def show(evaluation: Evaluation, console: Console) -> None:
    """Print a table: task, metric, value ± standard error, chance, documents asked."""
    table = Table(header_style="bold")
    for column in ("task", "metric", "value", "chance", "n"):
        table.add_column(column, justify="right" if column in ("value", "chance", "n") else "left", no_wrap=True)
    for name, answer in evaluation.tasks.items():
        for row, (metric, found) in enumerate(answer.metrics.items()):
            task, samples = (name, str(answer.samples)) if row == 0 else ("", "")
            table.add_row(task, metric, _value(found), _number(found.chance), samples)
    for name, group in evaluation.groups.items():
        for metric, stored in group.get("metrics", {}).items():
            table.add_row(name, metric, _value(AnswerMetric.from_dict(stored)), "–", "")
    console.print(table)


def _value(metric: AnswerMetric) -> str:
    return _number(metric.value) + ("" if metric.stderr is None else f" ± {_number(metric.stderr)}")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _answer(name: str, results: Mapping[str, Any], group: str | None) -> Answer:
    """One task of lm_eval's results. Its hash is of documents, prompts and targets."""
    samples = results["samples"][name]
    hashes = "".join(sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"] for sample in samples)
    chance = _chance(samples) if results["configs"][name].get("output_type") == "multiple_choice" else None
    return Answer(
        version=results["versions"].get(name),
        hash=hashlib.sha256(hashes.encode()).hexdigest(),
        samples=results["n-samples"][name]["effective"],
        fewshot=results["n-shot"].get(name, 0),
        group=group,
        metrics=_metrics(results["results"][name], results["higher_is_better"].get(name, {}), chance),
    )


def _group(name: str, results: Mapping[str, Any]) -> dict[str, Any]:
    found, better = results.get("groups", {}).get(name, {}), results["higher_is_better"].get(name, {})
    metrics = {metric: value.to_dict() for metric, value in _metrics(found, better, None).items()}
    return {"tasks": list(results["group_subtasks"][name]), **({"metrics": metrics} if metrics else {})}


def _metrics(found: Mapping[str, Any], better: Mapping[str, Any], chance: float | None) -> dict[str, AnswerMetric]:
    """lm_eval's flat `acc,none` and `acc_stderr,none`, by name; a name that was filtered keeps its filter."""
    metrics = {}
    for key, value in found.items():
        metric, comma, kept = key.partition(",")
        if comma and not metric.endswith("_stderr"):
            metrics[metric if kept == "none" else key] = AnswerMetric(
                value=_finite(value),
                stderr=_finite(found.get(f"{metric}_stderr,{kept}")),
                higher_is_better=better.get(metric),  # type: ignore[arg-type]
                chance=chance if metric in ("acc", "acc_norm", "acc_bytes") else None,
                extra={} if kept == "none" else {"filter": kept},
            )
    return metrics


def _finite(value: Any) -> float | None:
    """A number; None for lm_eval's "N/A" and for NaN."""
    number = float(value) if isinstance(value, (int, float, np.number)) else float("nan")
    return None if number != number else number


def _chance(samples: Sequence[Mapping[str, Any]]) -> float | None:
    """What guessing blindly among the choices gets right; None where several may be right.

    Where mutual information is measured, each choice is asked about twice.
    """
    if any(isinstance(sample["target"], list) for sample in samples):
        return None
    counts = [len(sample["arguments"]) // (1 + ("acc_mutual_info" in sample["metrics"])) for sample in samples]
    return sum(1 / count for count in counts) / len(counts)
