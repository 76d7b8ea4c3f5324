"""The runs of a suite asked by lm-evaluation-harness: what each has not answered yet, stored in its record."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.errors import UserError
from harness.executors.local import Local
from harness.executors.pool import Pool
from harness.isolation import lease
from harness.isolation.supervisor import Report
from harness.lm_eval.evaluate import Evaluation, check_tasks, evaluate
from harness.plan.published_rows import open_weights
from harness.processes import default_workers
from harness.records.find import find_run, open_model, tokenizer_of
from harness.records.record import LmEval, Record
from harness.records.spec import RunSpec
from harness.records.store import Store, read_record
from harness.suite.loaded import LoadedSuite
from harness.suite.schema import LmEval as Settings
from harness.suite.trust import check as check_trust
from zoo.registry import load_plugin
from zoo.types import Unsupported

if TYPE_CHECKING:
    from zoo.contract import Model

Terms = dict[str, Any]
"""What decides on an answer beside the task: limit, fewshot, max_length."""


def unanswered(record: Record, names: Iterable[str], terms: Terms) -> list[str]:
    """The tasks and groups that a run has not answered on these terms."""
    old = record.lm_eval
    done = set(old.names) if old is not None and old.terms == terms else set()
    return [name for name in names if name not in done]


def answers(evaluation: Evaluation, names: Iterable[str], terms: Terms) -> LmEval:
    """What a record keeps of an evaluation."""
    tasks, groups = evaluation.tasks, evaluation.groups
    return LmEval(evaluation.package, terms, tuple(sorted(set(names))), tasks, groups, {}, evaluation.seconds)


def add_answers(record: Record, new: LmEval) -> Record:
    """The record with new answers; older ones stay where they were given on the same terms by the same version."""
    old = record.lm_eval
    if old is not None and (old.terms, old.package) == (new.terms, new.package):
        refused = {task: why for task, why in {**old.refused, **new.refused}.items() if task not in new.tasks}
        new = replace(
            old,
            names=tuple(sorted({*old.names, *new.names})),
            tasks={**old.tasks, **new.tasks},
            groups={**old.groups, **new.groups},
            refused=refused,
            seconds=old.seconds + new.seconds,
        )
    return record.replace(lm_eval=new)


def evaluate_run(
    reference: str,
    names: list[str],
    root: Path | None,
    terms: Terms,
    *,
    weights_options: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[Evaluation, Path | None]:
    """What the model of a run, or a published one, answers; and the record of the run, in which it is stored.

    Args:
        reference, weights_options: as `open_model` takes them. options: the rest of what `evaluate` takes.

    Raises:
        UserError: the model or a task cannot be had, or the model cannot read the questions.
    """
    model, folder = open_model(reference, root, **(weights_options or {})), find_run(reference, root)
    evaluation = evaluate(model, names, **terms, **options)
    if folder is None:
        return evaluation, None
    store, file = Store(folder.parent.name, folder.parent.parent), folder / "record.json"
    store.write(add_answers(read_record(file), answers(evaluation, names, terms)))
    return evaluation, file


def evaluate_suite(
    loaded: LoadedSuite, records: list[Record], store: Store, workers: int | None, console: Console
) -> int:
    """Ask every language model among these final runs what it has not answered yet; returns how many were asked.

    A model that cannot be asked (a character that it has no token for) keeps none of the others from answering.

    Raises:
        UserError: a task cannot be had.
    """
    settings = loaded.suite.lm_eval
    pending = [(record, names) for record in records if (names := _pending(record, settings, store))]
    if settings is None or not pending:
        return 0
    members, folders = tuple(check_suite(loaded)), _folders(settings, loaded)
    store, plugins = Store(loaded.name, store.folder.parent.resolve()), tuple(where for _, where in loaded.plugins)
    jobs = [
        Questions(record.spec, tuple(names), store, settings, members, plugins, folders) for record, names in pending
    ]
    workers = min(workers or default_workers(), len(jobs))
    console.print(f"{len(jobs)} models answer {', '.join(settings.tasks)}; {workers} at a time", markup=False)
    numbers = itertools.count(1)

    def tell(job: Questions, event: dict[str, Any]) -> None:
        title, error = job.spec.title(), event.get("error")
        if event["event"] == "end":
            said = f"{event['status']}{f': {error}' if error else ''}"
            console.print(f"  {next(numbers)}/{len(jobs)} {title}: {said}", highlight=False, markup=False)
        elif event["event"] == "note":
            console.print(f"  {title}: {event['message']}", highlight=False, markup=False)

    limits = loaded.suite.limits
    pool = Pool(Local(workers), limits.bounds, limits.retries, tell=tell, say=console.print)
    return len(jobs) - len(pool.run(jobs))


@dataclass(frozen=True)
class Questions:
    """What one run is still to be asked, in a process of its own."""

    spec: RunSpec
    names: tuple[str, ...]
    store: Store
    settings: Settings
    members: tuple[str, ...]
    """All tasks of the suite, groups taken apart: those that a model which cannot be asked is refused."""
    plugins: tuple[str, ...]
    folders: dict[str, Any]

    @property
    def name(self) -> str:
        """The run's id."""
        return self.spec.run_id

    @property
    def folder(self) -> Path:
        """The run's folder, to be written to."""
        return self.store.own_path(self.name)

    def taken(self) -> bool:
        """Whether another process asks it."""
        return lease.taken(self.folder)

    def outcome(self) -> tuple[str, Any] | None:
        """Whether it has answered or was refused; None before."""
        record = self._record()
        given = record.lm_eval
        if given is None or unanswered(record, self.names, self.settings.terms()):
            return None
        refused = next(iter(given.refused.values()), None)
        return ("cannot be asked", refused) if refused else (f"{given.seconds:.0f} s", None)

    def fail(self, status: str, kind: str, message: str) -> None:
        """Store that it cannot be asked, and why."""
        refused = dict.fromkeys(self.members, message)
        new = LmEval(version("lm_eval"), self.settings.terms(), tuple(sorted(self.names)), {}, {}, refused, 0.0)
        self.store.write(add_answers(self._record(), new))

    def work(self, report: Report) -> None:
        """Ask, and store the answers."""
        import torch

        torch.set_num_threads(1)
        terms = self.settings.terms()
        try:
            with lease.hold(self.folder):
                for plugin in self.plugins:
                    load_plugin(plugin)
                evaluation = evaluate(self._open(), list(self.names), **self.folders, **terms)
                self.store.write(add_answers(self._record(), answers(evaluation, self.names, terms)))
        except lease.Taken:
            report({"event": "taken"})
        except (UserError, Unsupported) as error:
            self.fail("failed", "UserError", error.message if isinstance(error, UserError) else str(error))

    def _record(self) -> Record:
        record = self.store.read(self.name)
        if record is None:
            raise UserError("the run is gone", file=self.folder)
        return record

    def _open(self) -> Model:
        """The model of a final run, or of a row of published weights."""
        if self.spec.pretrained:
            return open_weights(self.spec, self.spec.build_task())
        return open_model(str(self.folder))


def check_suite(loaded: LoadedSuite) -> list[str]:
    """The names of all tasks that a suite asks; a UserError, perhaps at the suite's line, where one cannot be had."""
    settings = loaded.suite.lm_eval
    if settings is None:
        return []
    try:
        return check_tasks(settings.tasks, **_folders(settings, loaded))
    except UserError as error:
        if error.file is not None:
            raise
        raise loaded.error(error.message, ("lm_eval",)) from None


def _folders(settings: Settings, loaded: LoadedSuite) -> dict[str, Any]:
    """The suite's folders of tasks, which are code, and of files."""
    paths = {"include": settings.include, "data": settings.data}
    folders = {name: loaded.folder / path if path else None for name, path in paths.items()}
    if (include := folders["include"]) is not None:
        error = partial(loaded.error, path=("lm_eval", "include"))
        check_trust([include.resolve()], trusted=loaded.trusted, error=error)
    return folders


def _pending(record: Record, settings: Settings | None, store: Store) -> list[str]:
    """What a run is still to be asked; nothing where it is no model of text with its weights here."""
    if settings is None or record.status != "ok" or record.spec.role != "lm":
        return []
    if not record.external and tokenizer_of(store.run_folder(record.run_id)) is None:
        return []
    return unanswered(record, settings.tasks, settings.terms())
