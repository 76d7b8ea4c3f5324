"""The runs of a suite answer lm-evaluation-harness: what each lacks is asked, and stored in its record."""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
import threading
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.errors import UserError
from harness.processes import context, default_workers, without_main
from harness.records import record as typed
from harness.records.record import Record
from harness.records.store import Store, read_record
from harness.suite.loaded import LoadedSuite
from harness.suite.schema import LmEval

if TYPE_CHECKING:
    from harness.records.spec import RunSpec
    from zoo.contract import Model


@dataclass(frozen=True)
class Sheet:
    """What one run is still to be asked."""

    root: Path
    suite: str
    run_id: str
    names: tuple[str, ...]
    terms: dict[str, Any]
    include: Path | None = None
    data: Path | None = None
    plugins: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    """All tasks of the suite, groups taken apart."""
    threads: int = 1


def lacking(record: Record, names: Iterable[str], terms: dict[str, Any]) -> list[str]:
    """Which of these tasks and groups a run has not answered on these terms."""
    had = record.lm_eval
    done = set(had.names) if had is not None and had.terms == terms else set()
    return [name for name in names if name not in done]


def store(record: Record, names: Iterable[str], terms: dict[str, Any], found: dict[str, Any]) -> Record:
    """The record with these answers; older ones stay where they were given on the same terms.

    `found` is what `evaluate` gives, or for a model that could not be asked `package` and `refused`: why, by task.
    """
    had = {} if record.lm_eval is None else record.lm_eval.to_dict()
    if had.get("terms") != terms or had.get("package") != found["package"]:
        had = {}
    tasks = {**had.get("tasks", {}), **found.get("tasks", {})}
    refused = {**had.get("refused", {}), **found.get("refused", {})}
    together = {
        "package": found["package"],
        "terms": terms,
        "names": sorted({*had.get("names", ()), *names}),
        "tasks": tasks,
        "groups": {**had.get("groups", {}), **found.get("groups", {})},
        "refused": {task: why for task, why in refused.items() if task not in found.get("tasks", {})},
        "seconds": had.get("seconds", 0.0) + found.get("seconds", 0.0),
    }
    return record.replace(lm_eval=typed.LmEval.from_dict(together))


def ask(loaded: LoadedSuite, records: list[Record], kept: Store, workers: int | None, console: Console) -> int:
    """Ask every language model among these final runs what the suite wants and it has not answered; returns how many.

    A model that cannot be asked (a character that it has no token for) keeps none of the others from answering.

    Raises:
        UserError: a task cannot be had.
    """
    asked = loaded.suite.lm_eval
    if asked is None:
        return 0
    sheets = [sheet for record in records if (sheet := _sheet(record, asked, loaded, kept)) is not None]
    if not sheets:
        return 0
    members = tuple(check(loaded))
    sheets = [dataclasses.replace(sheet, members=members) for sheet in sheets]
    workers = min(workers or default_workers(), len(sheets))
    console.print(f"{len(sheets)} models answer {', '.join(asked.tasks)}; {workers} at a time", highlight=False)
    with ProcessPoolExecutor(workers, mp_context=context(), initializer=_quiet) as pool, without_main():
        futures = {pool.submit(answer, sheet): sheet for sheet in sheets}
        try:
            for number, future in enumerate(as_completed(futures), 1):
                told = future.result()
                console.print(f"  {number}/{len(sheets)} {told}", highlight=False)
        except BaseException:  # what was answered is stored; the rest is asked the next time
            for future in futures:
                future.cancel()
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return len(sheets)


def check(loaded: LoadedSuite) -> list[str]:
    """Find out whether what a suite asks can be had; the names of its tasks.

    Raises:
        UserError: it cannot; at the suite's own line, where it is the name that is wrong.
    """
    from harness.lm_eval import evaluate

    asked = loaded.suite.lm_eval
    if asked is None:
        return []
    include, data = _beside(asked, loaded)
    try:
        return evaluate.check(asked.tasks, include=include, data=data)
    except UserError as error:
        if error.file is not None:
            raise
        raise loaded.error(error.message, ("lm_eval",)) from None


def _beside(asked: LmEval, loaded: LoadedSuite) -> tuple[Path | None, Path | None]:
    """The suite's folders of tasks and of files."""
    include, data = (loaded.folder / path if path else None for path in (asked.include, asked.data))
    return include, data


def _sheet(record: Record, asked: LmEval, loaded: LoadedSuite, kept: Store) -> Sheet | None:
    """What a run is asked; None where there is nothing left, or it is no model of text with its weights here."""
    names = lacking(record, asked.tasks, asked.terms())
    if record.status != "ok" or record.spec.role != "lm" or not names:
        return None
    from harness.records.find import tokenizer_of

    run_id = record.run_id
    if not record.external and tokenizer_of(kept.run_folder(run_id)) is None:
        return None
    plugins = tuple(where for _, where in loaded.plugins)
    root, suite = kept.folder.parent.resolve(), loaded.name
    return Sheet(root, suite, run_id, tuple(names), asked.terms(), *_beside(asked, loaded), plugins)


def answer(sheet: Sheet) -> str:
    """Answer a sheet and store it in the record; says whose it was. Runs in a process of its own."""
    import torch

    from harness.lm_eval import evaluate
    from zoo.registry import load_plugin
    from zoo.types import Unsupported

    torch.set_num_threads(sheet.threads)
    for plugin in sheet.plugins:
        load_plugin(plugin)
    kept = Store(sheet.suite, sheet.root)
    record = kept.read(sheet.run_id)
    if record is None:
        raise UserError("the run is gone", file=kept.run_folder(sheet.run_id))
    spec = record.spec
    try:
        model = _opened(spec, kept)
        found = evaluate.evaluate(model, sheet.names, include=sheet.include, data=sheet.data, **sheet.terms)
    except (UserError, Unsupported) as error:
        why = error.message if isinstance(error, UserError) else str(error)
        found = {"package": version("lm_eval"), "refused": dict.fromkeys(sheet.members, why)}
        kept.write(store(record, sheet.names, sheet.terms, found))
        return f"{spec.title()} cannot be asked: {why}"
    kept.write(store(record, sheet.names, sheet.terms, found))
    return f"{spec.title()}: {found['seconds']:.0f} s"


def _opened(spec: RunSpec, kept: Store) -> Model:
    """The model of a final run, or of an external row."""
    if spec.pretrained:
        from harness.plan.published_rows import open_weights

        return open_weights(spec, spec.build_task())
    from harness.records.find import open_model

    return open_model(str(kept.run_folder(spec.run_id)))


def ask_one(
    reference: str,
    names: list[str],
    root: Path | None,
    terms: dict[str, Any],
    *,
    opening: dict[str, Any] | None = None,
    **how: Any,
) -> tuple[dict[str, Any], Path | None]:
    """What the model of a run, or a published one, answers; and the record of the run, in which it is stored.

    Args:
        reference, opening: as `harness.records.find.open_model`'s arguments. terms: as `LmEval.terms`.
        how: the rest of what `evaluate` takes.

    Raises:
        UserError: the model or a task cannot be had, or the model cannot read the questions.
    """
    from harness.lm_eval import evaluate
    from harness.records.find import find_run, open_model

    model, folder = open_model(reference, root, **(opening or {})), find_run(reference, root)
    found = evaluate.evaluate(model, names, **terms, **how)
    if folder is None:
        return found, None
    kept, record = Store(folder.parent.name, folder.parent.parent), read_record(folder / "record.json")
    kept.write(store(record, names, terms, found))
    return found, folder / "record.json"


def _quiet() -> None:
    """Ctrl-C reaches the whole group; the parent decides what it means. No bar may own a lock that outlives us."""
    from tqdm import tqdm

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(threading.RLock())
