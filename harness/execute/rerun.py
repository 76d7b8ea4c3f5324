"""Make a recorded run again, and compare what it left with the record."""

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from harness.errors import UserError
from harness.plan.expand import plugin_digest
from harness.processes import default_workers
from harness.records.checks import stream_by_step
from harness.records.record import SIZES, Error, Metrics, Record, empty_record
from harness.records.spec import RunSpec
from harness.records.store import Store
from harness.suite.schema import Limits
from tasks.base import DataError, Task
from zoo.types import Unsupported

TOLERANCE = 0.01
"""How far scores may lie apart, relative to the larger one, where runs were made on different machines."""

MACHINE = ("hardware", "device", "threads", "precision", "kernels", "devices", "shard", "recompute")
COMPUTING = ("torch", "numpy", "scipy", "numba")
"""Packages that decide on the last digits of a score."""


@dataclass(frozen=True)
class Rerun:
    """A record, the run that was made again, and where the two differ."""

    record: Record
    again: Record
    tolerance: float
    """How far apart scores may be; 0 for equal to the last digit."""
    apart: float
    """How far apart they are: the largest relative difference of a score."""
    problems: list[str]

    def __str__(self) -> str:
        found = "; ".join(self.problems) or ("scores are equal to the last digit" if not self.apart else self._near())
        return f"{self.record.spec.title()} ({self.record.run_id}) made again: {found}"

    def _near(self) -> str:
        return f"scores differ by at most {self.apart:.2g} of their value, {self.tolerance:g} allowed"

    def to_dict(self) -> dict[str, Any]:
        """What a report keeps of it."""
        about = {"run_id": self.record.run_id, "run": self.record.spec.title()}
        return about | {"apart": self.apart, "tolerance": self.tolerance, "problems": self.problems}


def draw(records: Iterable[Record], count: int) -> list[Record]:
    """At most `count` runs, drawn by the system's randomness: every row is as likely, within it final runs and trials.

    Left out are published weights, which nobody trains here, and ends that depend on the machine (`oom`, `timeout`).
    """
    chance, rows = random.SystemRandom(), dict[Any, list[Record]]()
    for record in records:
        if record.status not in ("oom", "timeout", "damaged") and not record.spec.pretrained:
            rows.setdefault(record.spec.cell, []).append(record)
    order: list[tuple[int, float, Record]] = []
    for own in rows.values():
        kinds = Counter(record.spec.kind for record in own)
        # each kind weighs the same, whatever its number (Efraimidis & Spirakis 2006)
        own.sort(key=lambda record: chance.random() ** kinds[record.spec.kind], reverse=True)
        order += [(place, chance.random(), record) for place, record in enumerate(own)]
    return [record for *_, record in sorted(order, key=lambda item: item[:2])[:count]]


def rerun(record: Record, *, plugins: Sequence[str] = (), tolerance: float | None = None, console: Console) -> Rerun:
    """Make a run again in its own process, with its own number of threads, and compare it with its record.

    Args:
        plugins: what to import first; their content must be that of the plug-ins the run was made with.
        tolerance: see `compare`.

    Raises:
        UserError: the run cannot be made here: published weights, a plug-in or data that is not here.
    """
    from harness.execute.progress import Live, key
    from harness.execute.worker import Job
    from harness.executors.local import Local
    from harness.executors.pool import Pool
    from harness.plan.sizes import resolve_size

    spec, task = record.spec, _task(record, plugins)
    digests = {digest for _, digest in spec.plugins}
    own = tuple(where for where in plugins if plugin_digest(where) in digests)
    metrics, cores = Metrics.of(task), default_workers()
    with TemporaryDirectory() as folder:
        store = Store("again", Path(folder))
        try:
            size, threads = resolve_size(spec, task), min(record.provenance.threads or 1, cores)
        except Unsupported as error:
            reason = Error("Unsupported", str(error), "")
            return compare(record, empty_record(spec, "again", metrics, "unsupported", reason), tolerance)
        except (KeyError, TypeError, ValueError) as error:
            raise _impossible(spec, error) from None
        job = Job(spec, metrics, size, store, threads, own, checkpoint=math.inf, keep=False)
        limits, display = Limits(), Live({key(spec): job.weight}, console)
        with display.bars:
            Pool(Local(1), limits.bounds, limits.retries, tell=display.event_of, say=display.say).run([job])
        again = store.read(spec.run_id)
    if again is None:
        raise UserError(f"{spec.title()} could not be made again here")
    return compare(record, again, tolerance)


def _task(record: Record, plugins: Sequence[str]) -> Task:
    """The task of a run, after it was found that it can be made here."""
    spec = record.spec
    if spec.pretrained:
        raise UserError(f"{spec.title()}: its weights were made elsewhere; there is nothing to make again")
    lacking = {name: digest for name, digest in spec.plugins if digest not in map(plugin_digest, plugins)}
    if lacking:
        known = ", ".join(f"{name} ({digest})" for name, digest in lacking.items())
        raise UserError(f"{spec.title()} was made with other plug-ins than are here: {known}; see --plugin")
    try:
        task = spec.build_task()
        task.batch("train", 0, spec.seed, size=1)
    except (KeyError, TypeError, ValueError) as error:
        raise _impossible(spec, error) from None
    if task.fingerprint != spec.fingerprint:
        raise UserError(f"{spec.title()}: the data here is other data ({task.fingerprint}, not {spec.fingerprint})")
    return task


def _impossible(spec: RunSpec, error: Exception) -> UserError:
    said = error.args[0] if error.args else error
    return UserError(str(error) if isinstance(error, DataError) else f"{spec.title()} cannot be made here: {said}")


def compare(record: Record, again: Record, tolerance: float | None = None) -> Rerun:
    """Compare a record with the same run made again.

    Sizes, FLOPs, the stream of data and the outcome of each gate must be equal. So must scores, to the last digit, on
    the same CPU with equal code, threads, precision and packages; elsewhere, and where seconds end the run, they may
    lie `TOLERANCE` apart. `tolerance` replaces both.
    """
    allowed = tolerance if tolerance is not None else 0.0 if _same_machine(record, again) else TOLERANCE
    scores = {name: (_number(value), _number(theirs)) for name, value, theirs in _scores(record, again)}
    apart = {name: _apart(*pair) for name, pair in scores.items()}
    problems = [
        f"{name} is {_said(theirs)} in the record and {_said(ours)} here"
        for name, theirs, ours in _exact(record, again)
        if theirs != ours
    ]
    problems += [
        f"{name} is {_said(scores[name][0])} in the record and {_said(scores[name][1])} here, {by:.2g} of its value "
        f"apart and {allowed:g} allowed"
        for name, by in apart.items()
        if by > allowed
    ]
    theirs, ours = stream_by_step(record), stream_by_step(again)
    if other := [step for step in theirs.keys() & ours.keys() if theirs[step] != ours[step]]:
        problems.append(f"the data differs by step {min(other)}")
    return Rerun(record, again, allowed, max(apart.values(), default=0.0), problems)


def _same_machine(record: Record, again: Record) -> bool:
    """Whether two runs must agree to the last digit."""
    theirs, ours, stop = record.provenance, again.provenance, record.spec.stop
    equal = all(getattr(theirs, name) == getattr(ours, name) for name in MACHINE)
    equal &= all(theirs.packages.get(name) == ours.packages.get(name) for name in COMPUTING)
    return equal and ours.device == "cpu" and stop is not None and stop.meter != "seconds"


def _exact(record: Record, again: Record) -> Iterable[tuple[str, Any, Any]]:
    """What must be equal, wherever a run is made: its name, in the record, here."""
    yield "status", record.status, again.status
    if record.status != "ok" or again.status != "ok":
        return
    for name in SIZES:
        yield name, getattr(record.size, name, None), getattr(again.size, name, None)
    yield "FLOPs per token", record.budget.flops_per_token, again.budget.flops_per_token
    stop = record.spec.stop
    if stop is not None and stop.meter != "seconds" and stop.target is None:
        for name in ("steps", "tokens", "flops"):
            yield f"the number of {name}", getattr(record.budget.used, name), getattr(again.budget.used, name)
    theirs, ours = ({name: gate.passed for name, gate in one.eligibility.gates.items()} for one in (record, again))
    for name in {**ours, **theirs}:
        yield f"whether it passed gate {name}", theirs.get(name), ours.get(name)


def _scores(record: Record, again: Record) -> Iterable[tuple[str, Any, Any]]:
    """Every score by split and name, in the record and here."""
    for split in ("tune", "valid", "test"):
        theirs, ours = record.metrics.on(split), again.metrics.on(split)
        for name in {**ours, **theirs}:
            yield f"{name} on {split}", theirs.get(name), ours.get(name)


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _apart(one: float | None, other: float | None) -> float:
    """|a − b| / max(|a|, |b|); infinite where only one of them is a number."""
    if one is None or other is None:
        return 0.0 if one is other else math.inf
    return abs(one - other) / max(abs(one), abs(other)) if one != other else 0.0


def _said(value: Any) -> str:
    return "none" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)
