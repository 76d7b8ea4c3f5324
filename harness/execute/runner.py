"""Run a suite: what is missing is run, what is finished stays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.console import Console

from harness.errors import UserError
from harness.executors import named
from harness.loggers import Followers, open_loggers
from harness.plan.expand import expand
from harness.plan.rounds import add_seeds
from harness.plan.trials import Lookup, choose, lookup_in, trials
from harness.records.mirror import mirror_of
from harness.records.record import Error, Metrics, Record, damaged, empty_record
from harness.records.spec import RunSpec
from harness.records.store import Store, baseline_key
from harness.suite.loaded import LoadedSuite, SuiteTask
from tasks.base import DataError
from tasks.parts import check_parts

if TYPE_CHECKING:
    from harness.execute.worker import Job
    from harness.executors.pool import Executor
    from harness.plan.sizes import Sizes
    from zoo.size import Size

Decided: TypeAlias = "tuple[list[RunSpec], list[str]]"
"""Runs, and why some of them are added."""
MOST_LENGTH = 1 << 24
"""Steps of the longest sequence that anything is trained on."""


@dataclass(frozen=True)
class Ran:
    """What running a suite left: its final records, and the folder they are in."""

    loaded: LoadedSuite
    """The suite that was run."""
    store: Store
    made: list[RunSpec]
    """The final runs that are finished."""
    ran: int
    """Runs made by this call."""
    lost: int = 0
    """Runs that the machine kept from ending, or that wait for such trials; the next call makes them."""

    @property
    def suite(self) -> str:
        """The suite's name."""
        return self.loaded.name

    @property
    def folder(self) -> Path:
        """Where its results are."""
        return self.store.folder

    @cached_property
    def records(self) -> list[Record]:
        """The records of its final runs."""
        return _records(self.made, self.store)

    @property
    def ok(self) -> bool:
        """Whether every final run ended well; a combination that cannot be (`unsupported`) is no failure."""
        return not self.lost and self.store.statuses(spec.run_id for spec in self.made) <= {"ok", "unsupported"}


@dataclass(frozen=True)
class _Call:
    """What all runs of one call share."""

    loaded: LoadedSuite
    store: Store
    tables: Collection[tuple[str, str]]
    """Which it fills, as (task, track)."""
    sizes: Sizes
    executor: Executor
    threads: int
    """Of each run."""
    console: Console
    loggers: Followers


def run_suite(
    loaded: LoadedSuite,
    *,
    root: Path | None = None,
    workers: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    ignore_published: bool = False,
    console: Console | None = None,
    log: str | Sequence[str] = (),
    on: str = "here",
    address: str | None = None,
    cluster: Mapping[str, Any] | None = None,
    tasks: Collection[str] = (),
    tracks: Collection[str] = (),
) -> Ran:
    """Run what a loaded suite still lacks; see `harness.run`."""
    from harness import machine

    machine.choose(device or loaded.suite.device)
    store, console = Store(loaded.name, root, ignore_published=ignore_published), console or Console()
    finals, tables = expand(loaded), loaded.tables(tasks, tracks)
    folder = store.own_path()
    devices, mirror = loaded.suite.limits.devices, mirror_of(store.folder.parent)
    if mirror is not None and on != "here":
        raise UserError(f"on {on}, results lie in a folder that all nodes see", file=mirror.url)
    executor, threads = named(on, folder, workers, threads, address=address, options=cluster or {}, devices=devices)
    most = len(machine.cards()) // devices if on == "here" else 0
    timed = any(spec.stop and spec.stop.meter == "seconds" for spec in _within(tables, finals))
    if 0 < most < executor.capacity and timed:
        raise UserError(f"runs that seconds end need GPUs of their own: at most {most} at a time", file="--workers")
    loggers = open_loggers(log, store, console)
    tries = trials(loaded, _lookup(store))
    tried = _records(tries, store)
    planned = [*tries, *add_seeds(loaded, choose(finals, tried), tried, store.read)[0]]
    own = _within(tables, planned)
    unmade = _missing(own, store)
    needed = own if unmade and loaded.suite.seed_rule else unmade  # any row may be added to
    sizes = _sizes(needed, loaded) if needed else {}  # before anything is written
    call = _Call(loaded, store, tables, sizes, executor, threads, console, loggers)
    with mirror.shared() if mirror else nullcontext(), loggers:
        ran = 0
        store.describe(loaded.described(planned))
        store.sweep()
        labels = {task for task, _ in tables}
        score_baselines(loaded, store, console, labels)  # first, as a run that is stopped is published too
        for unmade, _ in _rounds(lambda: (trials(loaded, _lookup(store)), []), call):
            ran += _execute(unmade, call)
        tries = trials(loaded, _lookup(store))
        lost = {spec.cell for spec in _missing(tries, store)}
        known = [spec for spec in finals if spec.cell not in lost]
        done, more = _make_finals(known, tries, call)
        ran, unmade = ran + more, _missing(done, store)
        made = [spec for spec in done if spec not in unmade]
        without = len(unmade) + len(_within(tables, finals)) - len(_within(tables, known))
        if without:
            console.print(f"{without} run(s) were lost, not by their models' fault; the same command makes them")
        elif not ran:
            console.print(_nothing_to_do([*_within(tables, tries), *done], store), markup=False)
        if loaded.suite.lm_eval is not None:
            from harness.lm_eval.evaluate_runs import evaluate_suite

            ran += evaluate_suite(loaded, _records(made, store), store, workers, console)
    return Ran(loaded, store, made, ran, without)


def _within(tables: Collection[tuple[str, str]], specs: Iterable[RunSpec]) -> list[RunSpec]:
    """The runs that fill these tables."""
    return [spec for spec in specs if (spec.task_label, spec.track) in tables]


def _nothing_to_do(specs: list[RunSpec], store: Store) -> str:
    own = store.own_ids()
    theirs = sum(spec.run_id not in own for spec in specs)
    note = f", {theirs} of them published ones (--ignore-published makes them again)" if theirs else ""
    return f"{store.folder}: all {len(specs)} runs are finished{note}; nothing to do"


def current(loaded: LoadedSuite, store: Store) -> list[Record]:
    """Every record of the suite's trials, and of its final runs as the trials decide them."""
    tried = _records(trials(loaded, _lookup(store)), store)
    unknown = {r.spec.cell: UserError(r.error.message) for r in tried if r.status == "damaged" and r.error}
    every = expand(loaded)
    finals = choose([spec for spec in every if spec.cell not in unknown], tried)
    finals, _ = add_seeds(loaded, finals, tried, store.read)
    lost = [spec for spec in every if spec.cell in unknown]  # what their trials chose is not known
    return [
        *tried,
        *_records(finals, store),
        *(damaged(spec, spec.run_id, store.suite, unknown[spec.cell]) for spec in lost),
    ]


def _make_finals(finals: list[RunSpec], tries: list[RunSpec], call: _Call) -> tuple[list[RunSpec], int]:
    """Make these final runs with what their trials chose, and the seeds that are added, in the call's tables; all of
    them, and how many were made now."""
    loaded, store = call.loaded, call.store
    tried, ran = _records(tries, store), 0
    chosen = choose(finals, tried)

    def decide() -> Decided:
        specs, why = add_seeds(loaded, chosen, tried, store.read)
        store.describe(loaded.described([*tries, *specs]))
        return specs, why

    for unmade, why in _rounds(decide, call):
        for line in why:
            call.console.print(line, highlight=False, markup=False)
        ran += _execute(unmade, call)
    return _within(call.tables, decide()[0]), ran


def _rounds(decide: Callable[[], Decided], call: _Call) -> Iterator[Decided]:
    """Round after round, the runs of the call's tables that are decided and not made, none twice; and why these."""
    begun = set[str]()
    while True:
        specs, why = decide()
        unmade = [spec for spec in _missing(_within(call.tables, specs), call.store) if spec.run_id not in begun]
        if not unmade:
            return
        yield unmade, why
        begun |= {spec.run_id for spec in unmade}


def _lookup(store: Store) -> Lookup:
    return lookup_in(partial(_sound, store), lambda: [r for r in store.records() if r.status != "damaged"])


def _sound(store: Store, run_id: str) -> Record | None:
    """The record of a trial; None also where it is damaged, and the trial is made again."""
    try:
        return store.read(run_id)
    except UserError:
        return None


def _missing(specs: list[RunSpec], store: Store) -> list[RunSpec]:
    """The runs without a record, and the trials with a damaged one, as without it no final run is known."""
    finished = {*store.ids()} if specs else ()
    made = (_sound(store, s.run_id) if s.kind == "trial" else s.run_id in finished for s in specs)
    return [spec for spec, done in zip(specs, made, strict=True) if not done]


def _records(specs: list[RunSpec], store: Store) -> list[Record]:
    return [record for spec in specs if (record := store.read(spec)) is not None]


def _sizes(specs: list[RunSpec], loaded: LoadedSuite) -> Sizes:
    """The size of every cell of these runs, after their data and their questions were found to be here."""
    from harness.plan.sizes import solve

    load_data(loaded, specs)
    sizes = solve(specs, loaded, apart=True)
    if loaded.suite.lm_eval is not None:
        from harness.lm_eval.evaluate_runs import check_suite

        check_suite(loaded)
    return sizes


def _execute(specs: list[RunSpec], call: _Call) -> int:
    """Make these runs, all trials or all final; returns how many were made."""
    if not specs:
        return 0
    from harness.execute.progress import Live, key
    from harness.executors.pool import Pool

    loaded, store, jobs = call.loaded, call.store, []
    for spec in specs:
        size = call.sizes[spec.cell]
        if isinstance(size, str):
            metrics = Metrics.of(loaded.task(spec.task_label).task)
            store.write(empty_record(spec, loaded.name, metrics, "unsupported", Error("Unsupported", size, "")))
        else:
            if store.made_here(spec.run_id) and not _sound(store, spec.run_id):  # a damaged trial, which is made again
                store.own_path(spec.run_id, "record.json").unlink()
            jobs.append(_job(spec, size, call))
    cannot = len(specs) - len(jobs)
    note = f", {cannot} unsupported" if cannot else ""
    noun = "trials" if specs[0].kind == "trial" else "runs"
    said = f"{len(jobs)} {noun} to do{note}; {min(call.executor.capacity, len(jobs))} at a time"
    call.console.print(f"{said}, {call.threads} thread(s) each", highlight=False)
    display = Live({key(job.spec): job.weight for job in jobs}, call.console, call.loggers.event)
    with display.bars:
        limits = loaded.suite.limits
        pool = Pool(call.executor, limits.bounds, limits.retries, tell=display.event_of, say=display.say)
        return len(specs) - len(pool.run(jobs))


def _job(spec: RunSpec, size: Size | None, call: _Call) -> Job:
    from harness.execute.worker import Job, SharedJob

    loaded, store = call.loaded, call.store
    metrics, root = Metrics.of(loaded.task(spec.task_label).task), store.folder.parent.absolute()
    keep, plugins, limits = loaded.suite.weights == "keep", loaded.plugins_of(spec), loaded.suite.limits
    layout = (limits.devices, limits.shard, limits.recompute)
    kind, own = SharedJob if mirror_of(root) else Job, Store(store.suite, root)
    return kind(spec, metrics, size, own, call.threads, plugins, limits.checkpoint, keep, *layout)


def load_data(loaded: LoadedSuite, specs: list[RunSpec]) -> None:
    """Make one example of every task of these runs: a UserError tells of missing or damaged data in time."""
    trained_last = sorted(specs, key=lambda spec: spec.train is not None)
    for label, settings in {spec.task_label: spec.train for spec in trained_last}.items():
        task = loaded.task(label)
        try:
            if task.task.shape.length > MOST_LENGTH:
                raise loaded.error(f"sequences have at most {MOST_LENGTH:,} steps", ("tasks", task.index))
            task.task.batch("train", 0, 0, size=1)
        except DataError as error:
            raise UserError(str(error)) from None
        if settings is not None:
            try:
                examples = max(1, settings.batch_tokens // task.task.train_length)
                check_parts(task.task, examples, settings.accumulate * loaded.suite.limits.devices)
            except ValueError as error:
                raise loaded.error(str(error), ("tasks", task.index)) from None


def score_baselines(loaded: LoadedSuite, store: Store, console: Console, labels: Collection[str]) -> None:
    """Score the baselines of these tasks once per fingerprint and number of test examples, two tasks at a time."""
    found: dict[str, Any] = store.read_baselines()
    tasks = [task for task in loaded.tasks if task.label in labels]
    lacking = {key: task for task in tasks if (key := _baseline_key(loaded, task)) not in found}
    if not lacking:
        return
    console.print(f"baselines of {', '.join(task.label for task in lacking.values())} …", highlight=False, markup=False)
    most = loaded.suite.evaluate.test

    def score(task: SuiteTask) -> list[dict[str, Any]]:
        head = {"task_label": task.label, "metric": task.task.metric.name}
        return [{**head, **asdict(baseline)} for baseline in task.task.baselines(None if most == "all" else most)]

    with ThreadPool(2) as pool:  # its threads keep nobody waiting who does not want to
        found |= zip(lacking, pool.map(score, lacking.values()), strict=True)
    store.write_baselines(found)


def _baseline_key(loaded: LoadedSuite, task: SuiteTask) -> str:
    return baseline_key(task.label, task.task.fingerprint, loaded.suite.evaluate.test)


def baselines(loaded: LoadedSuite, store: Store) -> list[dict[str, Any]]:
    """The stored baselines of the tasks of a suite."""
    found = store.read_baselines()
    return [row for task in loaded.tasks for row in found.get(_baseline_key(loaded, task), [])]
