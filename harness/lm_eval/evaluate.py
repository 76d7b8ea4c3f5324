"""A language model asked the questions of lm-evaluation-harness: lm-eval's own tasks, ours, and those of a folder.

lm-eval draws from the global generators, prints, and shows bars of its own. Here the generators are as they were
afterwards, nothing is printed, and what the bars would show is told to whoever asked.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from harness.errors import UserError
from harness.lm_eval import questions
from harness.lm_eval.questions.files import VARIABLE
from zoo.registry import nearest

BOOTSTRAP = 1000
"""Resamples behind a standard error that has no formula (perplexity): it is right within some 2%, and repeatable."""

PACE = 0.5
"""Seconds between two lines on how far it is."""

Stored = dict[str, Any]


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
    tell: Callable[[str], None] = lambda text: None,
) -> Stored:
    """Ask a model the questions of every task in `names`; what a record keeps of it.

    Args:
        model: a `zoo.contract.Model` with a tokenizer, or any `lm_eval` LM.
        names: tasks, groups or tags: ours (`questions.known`), lm-eval's, and those of YAML files in `include`.
        limit: the first so many documents of each task, or that fraction of them if below 1.
        fewshot: answered questions before each; None as the task says. A task that allows none keeps to that.
        data: the folder with the files of the tasks `local_*`; None leaves `ZOOBENCH_QUESTIONS` as it is.
        max_length, batch_size: for a Model, how many tokens it is given at once, and how many rows; None as it comes.
        seed: of few-shot examples and of sampled generations.
        tell: is told what is being done.

    Returns:
        `package` (lm-eval's version), `seed`, `limit`, `max_length`, `seconds`; `tasks`, for each by name:
        `version`, `hash` (lm-eval's: of documents, prompts and targets), `samples`, `fewshot`, `group` (the entry of
        `names` that brought it, else None) and `metrics`, by name: `value`, `stderr` (None where lm-eval has none),
        `higher_is_better`, `chance` (accuracy of a blind guess), and `filter` if it is not lm-eval's "none";
        `groups`, by name: `tasks` and, where the group says how to aggregate, `metrics`.

    Raises:
        UserError: lm-eval is absent, a name is unknown, a task's data cannot be had or are damaged, an argument is out
            of range, or the model cannot be asked.
    """
    package = _package()
    _check(names, limit, fewshot)
    began = time.perf_counter()
    with ExitStack() as stack:
        for context in (_environment(data), _untouched(seed), _quiet(), _bars(tell)):
            stack.enter_context(context)
        found, asked = _load(names, include, tell)
        _prepare(found["tasks"], fewshot, seed)
        tell(f"asking {', '.join(found['tasks'])}")
        try:
            lm = _lm(model, max_length, batch_size)
            with redirect_stdout(io.StringIO()):
                results = package.evaluate(lm=lm, task_dict=found, limit=limit, bootstrap_iters=BOOTSTRAP)
        except (ValueError, OverflowError) as error:  # Unsupported, TokenizerError; a perplexity beyond all numbers
            raise UserError(f"the model cannot be asked: {error}") from error
    return {
        "package": package.__version__,
        "seed": seed,
        "limit": limit,
        "max_length": getattr(lm, "max_length", None),
        "seconds": round(time.perf_counter() - began, 3),
        "tasks": {name: _task(name, results, asked[name]) for name in found["tasks"]},
        "groups": {name: _group(name, results) for name in found["groups"]},
    }


def check(names: Sequence[str], *, include: Path | None = None, data: Path | None = None) -> list[str]:
    """Find out whether every task can be had, before any model is asked; their names, groups taken apart.

    Raises:
        UserError: as `evaluate`, for names and data.
    """
    _package()
    _check(names, None, None)
    with ExitStack() as stack:
        for context in (_environment(data), _untouched(0), _quiet(), _bars(lambda text: None)):
            stack.enter_context(context)
        found, _ = _load(names, include, lambda text: None)
    return list(found["tasks"])


def show(stored: Stored, console: Console) -> None:
    """A table: task, metric, value ± standard error, chance, documents asked."""
    table = Table(header_style="bold")
    for column in ("task", "metric", "value", "chance", "n"):
        table.add_column(column, justify="right" if column in ("value", "chance", "n") else "left", no_wrap=True)
    for name, task in stored["tasks"].items():
        for row, (metric, found) in enumerate(task["metrics"].items()):
            first = (name, str(task["samples"])) if row == 0 else ("", "")
            table.add_row(first[0], metric, _value(found), _number(found["chance"]), first[1])
    for name, group in stored["groups"].items():
        for metric, found in group.get("metrics", {}).items():
            table.add_row(name, metric, _value(found), "–", "")
    console.print(table)


def _value(metric: Stored) -> str:
    error = "" if metric["stderr"] is None else f" ± {_number(metric['stderr'])}"
    return _number(metric["value"]) + error


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _package() -> Any:
    """The module `lm_eval`.

    Raises:
        UserError: it is absent or too old.
    """
    install = "pip install -U 'zoobench[lm-eval]'"
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UserError(
            f"questions are asked through lm-eval, which cannot be imported ({error}): {install}"
        ) from error
    if not hasattr(TaskManager, "load"):
        raise UserError(f"lm-eval {lm_eval.__version__} is too old: {install}")
    return lm_eval


def _check(names: Sequence[str], limit: float | None, fewshot: int | None) -> None:
    if not names or isinstance(names, str):
        raise UserError("name at least one task, group or tag; zoobench ls questions lists ours")
    if limit is not None and not (0 < limit < 1 or (limit >= 1 and limit == int(limit))):
        raise UserError(f"limit must be a whole number of documents, or a fraction between 0 and 1, got {limit:g}")
    if fewshot is not None and fewshot < 0:
        raise UserError(f"fewshot must be 0 or more, got {fewshot}")


def _lm(model: Any, max_length: int | None, batch_size: int | None) -> Any:
    from lm_eval.api.model import LM

    if isinstance(model, LM):
        return model
    from harness.lm_eval.adapter import Zoobench

    return Zoobench(model=model, max_length=max_length, batch_size=batch_size)


def _load(
    names: Iterable[str], include: Path | None, tell: Callable[[str], None]
) -> tuple[Stored, dict[str, str | None]]:
    """The tasks and groups of every name, as `TaskManager.load` gives them, and which name brought each task."""
    wanted = list(dict.fromkeys(names))
    manager = _manager(wanted, include, tell)
    found: Stored = {"tasks": {}, "groups": {}}
    asked: dict[str, str | None] = {}
    for name in wanted:
        tell(f"{name}: reading the questions")
        loaded = _read(manager, name)
        for task_name, task in loaded["tasks"].items():
            _allowed(task_name, task)
            if found["tasks"].setdefault(task_name, task) is task:
                asked[task_name] = None if task_name == name else name
        found["groups"].update(loaded["groups"])
    return found, asked


def _manager(names: Sequence[str], include: Path | None, tell: Callable[[str], None]) -> Any:
    """A TaskManager that knows every name. Reading lm-eval's own YAML files takes seconds: only where they are needed.

    Raises:
        UserError: it does not; or `include` is no folder.
    """
    from lm_eval.tasks import TaskManager

    if include is not None and not include.is_dir():
        raise UserError(f"{include} is no folder: it should hold the YAML files of lm-eval tasks")
    ours: list[str | Path] = [questions.HOME]
    if include is None:
        manager = TaskManager(include_path=ours, include_defaults=False)
        if set(names) <= set(manager.all_tasks):
            return manager
    tell("reading the list of lm-eval's tasks")
    manager = TaskManager(include_path=[*ours, *([include] if include else [])])
    known = manager.all_tasks
    for name in names:
        if name not in known:
            near = nearest(name, known)
            raise UserError(
                f"unknown lm-eval task {name!r}{near if near.startswith('; did') else ''}; "
                "zoobench ls questions lists those that need no hub"
            )
    return manager


def _read(manager: Any, name: str) -> Stored:
    """Load one name.

    Raises:
        UserError: what it asks cannot be had or read; with the task of ours that asks the same, if there is one.
    """
    try:
        return dict(manager.load([name]))
    except UserError:
        raise
    except Exception as error:  # lm-eval runs each task's own code, and that of the hub
        if name in questions.configs():
            raise UserError(f"{name}: {error}") from error
        local = f"local_{name}"
        instead = f"{local} asks the same of a file" if local in questions.configs() else "some need no hub"
        reason = f"{type(error).__name__}: {str(error).split(chr(10))[0]}"
        raise UserError(
            f"lm-eval task {name!r} cannot be loaded ({reason}); {instead}: zoobench ls questions"
        ) from error


def _allowed(name: str, task: Any) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise UserError(f"lm-eval task {name!r} runs the code that a model writes; zoobench does not")
    if getattr(task, "MULTIMODAL", False):
        raise UserError(f"lm-eval task {name!r} asks about images or sounds; the models here read text")


def _prepare(tasks: Mapping[str, Any], fewshot: int | None, seed: int) -> None:
    """Few-shot examples as they were asked for, by lm-eval's rule: a task that says 0 keeps to it."""
    for name, task in tasks.items():
        own = task.get_config("num_fewshot")
        if own is None or (fewshot is not None and own != 0):
            task.set_config(key="num_fewshot", value=fewshot or 0)
        if (task.get_config("num_fewshot") or 0) >= len(task.eval_docs) and not task.has_training_docs():
            raise UserError(f"{name} has {len(task.eval_docs)} documents, too few for {fewshot} examples before each")
        task.set_fewshot_seed(seed=seed)


def _task(name: str, results: Mapping[str, Any], group: str | None) -> Stored:
    samples = results["samples"][name]
    hashes = "".join(sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"] for sample in samples)
    better = results["higher_is_better"].get(name, {})
    chance = _chance(samples) if results["configs"][name].get("output_type") == "multiple_choice" else None
    return {
        "version": results["versions"].get(name),
        "hash": hashlib.sha256(hashes.encode()).hexdigest(),
        "samples": results["n-samples"][name]["effective"],
        "fewshot": results["n-shot"].get(name, 0),
        "group": group,
        "metrics": _metrics(results["results"][name], better, chance),
    }


def _group(name: str, results: Mapping[str, Any]) -> Stored:
    better = results["higher_is_better"].get(name, {})
    metrics = _metrics(results.get("groups", {}).get(name, {}), better, None)
    return {"tasks": list(results["group_subtasks"][name]), **({"metrics": metrics} if metrics else {})}


def _metrics(found: Mapping[str, Any], better: Mapping[str, bool], chance: float | None) -> Stored:
    """lm-eval's flat `acc,none` and `acc_stderr,none`, by name; a name that was filtered keeps its filter."""
    metrics: Stored = {}
    for key, value in found.items():
        metric, comma, kept = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        metrics[metric if kept == "none" else key] = {
            "value": _finite(value),
            "stderr": _finite(found.get(f"{metric}_stderr,{kept}")),
            "higher_is_better": better.get(metric),
            "chance": chance if metric in ("acc", "acc_norm", "acc_bytes") else None,
            **({} if kept == "none" else {"filter": kept}),
        }
    return metrics


def _finite(value: Any) -> float | None:
    """A number; None for lm-eval's "N/A" and for NaN."""
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


@contextmanager
def _environment(data: Path | None) -> Iterator[None]:
    """`data` where the tasks look for it; resampling in this process, because a fork beside threads can hang."""
    changes = {"DISABLE_MULTIPROC": "1", **({} if data is None else {VARIABLE: str(data)})}
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _untouched(seed: int) -> Iterator[None]:
    """The global generators seeded inside, and as they were outside."""
    import torch

    plain, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(plain)
            np.random.set_state(arrays)


@contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval's warnings without its chatter, the hub's errors without its retries."""
    levels = {"lm_eval": logging.WARNING, "huggingface_hub": logging.ERROR, "datasets": logging.ERROR}
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    tasks = logging.getLogger("lm_eval.api.task")
    tasks.addFilter(_no_advice)
    try:
        yield
    finally:
        tasks.removeFilter(_no_advice)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _no_advice(record: logging.LogRecord) -> bool:
    """Drops what lm-eval advises about every task that makes its own documents."""
    return "Custom kwargs can be passed" not in record.getMessage()


@contextmanager
def _bars(tell: Callable[[str], None]) -> Iterator[None]:
    """No bar is drawn; how far those are that are counted on is told, at most `PACE` seconds apart."""
    from lm_eval.api.task import tqdm

    begin, update, out, last = tqdm.__init__, tqdm.update, sys.stdout, 0.0

    def undrawn(self: Any, *args: Any, **options: Any) -> None:
        begin(self, *args, **{**options, "disable": True})
        self.doing = options.get("desc") or "questions"

    def counted(self: Any, n: float | None = 1) -> None:
        nonlocal last
        self.n += n or 0
        if self.total and time.monotonic() >= last + PACE:
            last = time.monotonic()
            with redirect_stdout(out):
                tell(f"{self.doing}: {self.n} of {self.total}")

    tqdm.__init__, tqdm.update = undrawn, counted
    try:
        yield
    finally:
        tqdm.__init__, tqdm.update = begin, update
