"""A suite from start to end: what is missing is run, what is there stays, and a board is written."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
from rich.console import Console

from harness import tuning
from harness.errors import UserError
from harness.spec import RunSpec, build_task, expand
from harness.store import Record, Store
from harness.suite import Loaded, load
from tasks.base import DataError

if TYPE_CHECKING:
    from harness.execute.worker import Job
    from harness.plan import Sizes
    from zoo.size import Size


@dataclass(frozen=True)
class Results:
    """What a suite left: its records, and the folder they and the board are in."""

    suite: str
    folder: Path
    records: list[Record]
    ran: int
    """Runs made by this call."""

    @property
    def ok(self) -> bool:
        """Whether every final run ended well; a combination that cannot be (`unsupported`) is no failure."""
        return all(record["status"] in ("ok", "unsupported") for record in self.records)


def run(
    suite: str | Path,
    *,
    overrides: tuple[str, ...] = (),
    root: Path | None = None,
    workers: int | None = None,
    console: Console | None = None,
) -> Results:
    """Run what a suite still lacks, write its board, and return its records.

    Args:
        suite: a name that ships, or a path. overrides: `key=value` pairs. root: where results go (`results`).
        workers: runs at a time; by default one per core.

    Raises:
        UserError: the suite is wrong, its data is not here, or another process is running it.
        KeyboardInterrupt: after checkpoints were written; call again to go on.
    """
    loaded = load(suite, overrides)
    store = Store(loaded.suite.suite, root)
    console = console or Console()
    finals, published = expand(loaded), store.published()
    tries = tuning.trials(loaded, _look(store))
    chosen = tuning.choose(finals, _records(tries, store))
    theirs = [id for id in map(_run_id, [*tries, *chosen]) if id in published and not store.finished(id, published)]
    if theirs:
        console.print(
            f"{store.folder} holds {len(theirs)} published records; yours take their place as they come in "
            f"(`git checkout {store.folder}` brings them back)",
            highlight=False,
        )
    unmade = _missing([*tries, *chosen], store, published)
    sizes = _sizes(unmade, loaded)  # before anything is written
    if unmade and loaded.suite.lm_eval is not None:
        from harness.lm_eval import answer

        answer.check(loaded)
    with _locked(store), store.replacing_published():
        ran = 0
        for tries in _decided(loaded, store, published):
            _execute(tries, sizes, loaded, store, workers, console, "trial")
            ran += len(tries)
        done = tuning.choose(finals, _records(tuning.trials(loaded, _look(store, published)), store))
        if missing := _missing(done, store, published):
            _execute(missing, sizes, loaded, store, workers, console, "final")
            ran += len(missing)
        if not ran:
            console.print(f"{store.folder}: all {len(finals) + tuning.count(loaded)} runs are finished; nothing to do")
        _baselines(done, store, console)
        if loaded.suite.lm_eval is not None:
            from harness.lm_eval import answer

            ran += answer.ask(loaded, _records(done, store), store, workers, console)
    return Results(loaded.suite.suite, store.folder, _records(done, store), ran)


def plugin_paths(loaded: Loaded) -> tuple[str, ...]:
    """What a fresh process must import to know the suite's plug-ins."""
    return tuple(where for _, where in loaded.plugins)


def current(loaded: Loaded, store: Store) -> tuple[list[RunSpec], list[Record]]:
    """The suite's final runs as its trials decide them, and every record, trials included, that belongs to them."""
    found = _records(tuning.trials(loaded, _look(store)), store)
    specs = tuning.choose(expand(loaded), found)
    return specs, found + _records(specs, store)


def _run_id(spec: RunSpec) -> str:
    return spec.run_id(build_task(spec).fingerprint)


def _decided(loaded: Loaded, store: Store, published: dict[str, str]) -> Iterator[list[RunSpec]]:
    """Round after round, the trials that can be made now, over all cells; none twice."""
    before: list[RunSpec] = []
    while tries := _missing(tuning.trials(loaded, _look(store, published)), store, published):
        if tries == before:
            return
        yield tries
        before = tries


def _look(store: Store, published: dict[str, str] | None = None) -> tuning.Look:
    """What finds a trial's record: any, or given what is `published` only those made here.

    Under another version of Optuna a sampler may ask for other points: what it asked for then is the trial, too.
    """
    elsewhere = functools.cache(lambda: tuning.under_another_version(store.records()))

    def look(spec: RunSpec) -> Record | None:
        run_id = _run_id(spec)
        found = store.read(run_id)
        if found is None and spec.tuning and spec.tuning["sampler"] == "tpe":
            found = elsewhere().get(tuning.place(spec))
        if found is None or (published is not None and not store.finished(found["run_id"], published)):
            return None
        return found

    return look


def _missing(specs: list[RunSpec], store: Store, published: dict[str, str]) -> list[RunSpec]:
    return [spec for spec in specs if not store.finished(_run_id(spec), published)]


def _records(specs: list[RunSpec], store: Store) -> list[Record]:
    found = (store.read(_run_id(spec)) for spec in specs)
    return [record for record in found if record is not None]


@contextlib.contextmanager
def _locked(store: Store) -> Iterator[None]:
    store.folder.mkdir(parents=True, exist_ok=True)
    path = store.folder / ".lock"
    lock = filelock.FileLock(path, blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UserError("another zoobench is running this suite here", file=store.folder) from None
    try:
        yield
    finally:
        lock.release()


def _sizes(specs: list[RunSpec], loaded: Loaded) -> Sizes:
    """The size of every cell of these runs, after their data was found to be here."""
    if not specs:
        return {}
    from harness.plan import solve

    load_data(specs)
    return solve(specs, loaded)


def _execute(
    specs: list[RunSpec], sizes: Sizes, loaded: Loaded, store: Store, workers: int | None, console: Console, kind: str
) -> None:
    from harness.execute import local
    from harness.progress import Live, key
    from harness.train import skeleton

    workers = workers or local.default_workers()
    threads = max(1, local.default_workers() // workers)
    jobs: list[Job] = []
    for spec in specs:
        size = sizes[spec.cell]
        if isinstance(size, str):
            error = {"kind": "Unsupported", "message": size, "where": ""}
            store.write(skeleton(spec, loaded.suite.suite, build_task(spec), "unsupported", error))
        else:
            jobs.append(_job(spec, loaded, store, threads, size))
    cannot = len(specs) - len(jobs)
    note = f", {cannot} unsupported" if cannot else ""
    noun = "trials" if kind == "trial" else "runs"
    console.print(f"{len(jobs)} {noun} to do{note}; {workers} at a time, {threads} thread(s) each", highlight=False)
    with Live({key(job.spec): _work(job) for job in jobs}, console) as display:
        local.run(jobs, workers=workers, timeout=loaded.suite.limits.timeout, display=display)


def _work(job: Job) -> float:
    """What a run weighs in the estimate of the time left: parameters times tokens, where its end is known in tokens."""
    assert job.size is not None
    return job.size.params * job.spec.stop.get("tokens", 1.0)


def _job(spec: RunSpec, loaded: Loaded, store: Store, threads: int, size: Size) -> Job:
    from harness.execute.worker import Job

    suite, root = loaded.suite, store.folder.parent.resolve()
    keep = suite.weights == "keep"
    return Job(spec, suite.suite, root, threads, plugin_paths(loaded), size, suite.limits.checkpoint, keep)


def load_data(specs: list[RunSpec]) -> None:
    """Make one example of every task, so that missing or damaged data is known before anything runs.

    Raises:
        UserError: the data's own message.
    """
    for spec in {spec.task_label: spec for spec in specs}.values():
        try:
            build_task(spec).batch("train", 0, 0, size=1)
        except DataError as error:
            raise UserError(str(error)) from None


def _baselines(specs: list[RunSpec], store: Store, console: Console) -> None:
    """Score every task's baselines once per fingerprint and number of test examples, two tasks at a time."""
    found: dict[str, Any] = store.read_baselines()
    lacking = {_baseline_key(spec): spec for spec in specs if _baseline_key(spec) not in found}
    if not lacking:
        return
    console.print(f"baselines of {', '.join(spec.task_label for spec in lacking.values())} …", highlight=False)
    with ThreadPoolExecutor(2) as pool:
        found |= zip(lacking, pool.map(_score_baselines, lacking.values()), strict=True)
    store.write_baselines(found)


def _baseline_key(spec: RunSpec) -> str:
    return f"{spec.task_label} {build_task(spec).fingerprint} {spec.evaluate['test']}"


def _score_baselines(spec: RunSpec) -> list[dict[str, Any]]:
    task, most = build_task(spec), spec.evaluate["test"]
    head = {"task_label": spec.task_label, "metric": task.metric.name}
    return [{**head, **asdict(baseline)} for baseline in task.baselines(None if most == "all" else most)]


def baselines(specs: list[RunSpec], store: Store) -> list[dict[str, Any]]:
    """The stored baselines that belong to these runs."""
    found, rows = store.read_baselines(), []
    for spec in {spec.task_label: spec for spec in specs}.values():
        rows += found.get(_baseline_key(spec), [])
    return rows
