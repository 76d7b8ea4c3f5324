"""The runs of a suite asked by lm-evaluation-harness: what each has not answered yet, stored in its record."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.errors import UserError
from harness.lm_eval.evaluate import Evaluation, check_tasks, evaluate
from harness.plan.published_rows import open_weights
from harness.processes import context, default_workers, without_main
from harness.records.find import find_run, open_model, tokenizer_of
from harness.records.record import LmEval, Record
from harness.records.spec import RunSpec
from harness.records.store import Store, read_record
from harness.suite.loaded import LoadedSuite
from harness.suite.schema import LmEval as Settings
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
    pending = {record.run_id: names for record in records if (names := _pending(record, settings, store))}
    if settings is None or not pending:
        return 0
    terms, members, folders = settings.terms(), check_suite(loaded), _folders(settings, loaded)
    store, plugins = Store(loaded.name, store.folder.parent.resolve()), [where for _, where in loaded.plugins]
    answer = partial(_answer, store=store, terms=terms, members=members, plugins=plugins, **folders)
    workers = min(workers or default_workers(), len(pending))
    console.print(
        f"{len(pending)} models answer {', '.join(settings.tasks)}; {workers} at a time", highlight=False, markup=False
    )
    with ProcessPoolExecutor(workers, mp_context=context(), initializer=_ignore_interrupts) as pool, without_main():
        futures = [pool.submit(answer, run_id, names) for run_id, names in pending.items()]
        try:
            for number, future in enumerate(as_completed(futures), 1):
                console.print(f"  {number}/{len(pending)} {future.result()}", highlight=False, markup=False)
        except BaseException:  # what was answered is stored; the rest is asked the next time
            for future in futures:
                future.cancel()
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return len(pending)


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
    """The suite's folders of tasks and of files."""
    paths = {"include": settings.include, "data": settings.data}
    return {name: loaded.folder / path if path else None for name, path in paths.items()}


def _pending(record: Record, settings: Settings | None, store: Store) -> list[str]:
    """What a run is still to be asked; nothing where it is no model of text with its weights here."""
    if settings is None or record.status != "ok" or record.spec.role != "lm":
        return []
    if not record.external and tokenizer_of(store.run_folder(record.run_id)) is None:
        return []
    return unanswered(record, settings.tasks, settings.terms())


def _answer(
    run_id: str, names: list[str], *, store: Store, terms: Terms, members: list[str], plugins: list[str], **folders: Any
) -> str:
    """Ask one model in this process, a fresh one, and store its answers; returns a line that says whose they are.

    `members` are all tasks of the suite, groups taken apart: those that a model which cannot be asked is refused.
    """
    import torch

    torch.set_num_threads(1)
    for plugin in plugins:
        load_plugin(plugin)
    record = store.read(run_id)
    if record is None:
        raise UserError("the run is gone", file=store.run_folder(run_id))
    title = record.spec.title()
    try:
        evaluation = evaluate(_open(record.spec, store), names, **folders, **terms)
        new, said = answers(evaluation, names, terms), f"{title}: {evaluation.seconds:.0f} s"
    except (UserError, Unsupported) as error:
        why = error.message if isinstance(error, UserError) else str(error)
        refused = dict.fromkeys(members, why)
        new = LmEval(version("lm_eval"), terms, tuple(sorted(names)), {}, {}, refused, 0.0)
        said = f"{title} cannot be asked: {why}"
    store.write(add_answers(record, new))
    return said


def _open(spec: RunSpec, store: Store) -> Model:
    """The model of a final run, or of a row of published weights."""
    if spec.pretrained:
        return open_weights(spec, spec.build_task())
    return open_model(str(store.run_folder(spec.run_id)))


def _ignore_interrupts() -> None:
    """Ctrl-C reaches the whole group; the parent decides what it means. No bar may own a lock that outlives us."""
    from tqdm import tqdm

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(threading.RLock())
