"""Which runs of a task can be compared: what most of them agree on, and why a row may not be ranked."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

from harness.records.meters import StopRule
from harness.records.record import Record
from harness.records.spec import MatchRule
from harness.table.rows import severity

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T", bound=Hashable)


class Machine(NamedTuple):
    """What runs must have in common where their seconds, or ratios of these, are compared."""

    hardware: str
    threads: str
    precision: str

    @classmethod
    def of(cls, record: Record) -> Machine:
        known = record.provenance
        hardware = known.hardware if known.devices == 1 else f"{known.devices} × {known.hardware}"
        return _machine(hardware, known.threads, known.precision)

    @staticmethod
    def differences(machines: Sequence[Machine]) -> str:
        """What differs between them: `hardware and threads`."""
        return " and ".join(name for name in Machine._fields if len({getattr(one, name) for one in machines}) > 1)


@cache
def _machine(*known: object) -> Machine:
    return Machine(*(str(value or "unknown") for value in known))


def machines(finals: Sequence[Record]) -> list[Machine]:
    """The kinds of machine that the scored runs come from."""
    return sorted({Machine.of(r) for r in finals if r.score is not None})


def vouched(finals: Sequence[Record]) -> Sequence[Record]:
    """The runs that are not only reported; all, where there are no others."""
    return [r for r in finals if r.origin.kind != "reported"] or finals


def majority(values: Iterable[T]) -> list[T]:
    """The value that occurs most often, alone in a list. A tie is no majority: nobody can say which side is right."""
    modes = statistics.multimode(values)
    return modes if len(modes) == 1 else []


TERMS: dict[str, Callable[[Record], Any]] = {
    "budget": lambda record: record.spec.stop,
    "size target": lambda record: record.spec.match,
    "metric": lambda record: record.metrics.primary,
    "data fingerprint": lambda record: record.data.fingerprint,
    "precision": lambda record: record.provenance.precision,
}
"""What every ranked run must share with most others."""


class Common:
    """What most runs of a task agree on. Only those that ended well count: one that stopped early consumed less."""

    def __init__(self, records: Sequence[Record]) -> None:
        done = [r for r in records if r.status == "ok" and not r.spec.pretrained]
        by_seed = grouped((r.spec.seed, r) for r in done)
        self.terms = {name: majority(map(read, done)) for name, read in TERMS.items()}
        self.stop: StopRule | None = next(iter(self.terms["budget"]), None)
        self.match: MatchRule | None = next(iter(self.terms["size target"]), None)
        self.machine = majority(map(Machine.of, vouched(done)))
        self._steps = {seed: _common_step(runs) for seed, runs in by_seed.items()}
        self.hashes = {seed: majority(map(self.stream_hash, runs)) for seed, runs in by_seed.items()}
        """Stream hashes by seed."""

    def stream_hash(self, record: Record) -> str:
        """The hash of the batches a run consumed, up to where all runs of its seed have been."""
        step = self._steps[record.spec.seed]
        return record.data.stream_hash if step is None else record.data.stream_marks.get(str(step), "")

    def same_data(self, record: Record) -> bool:
        """Whether a run consumed the batches that most runs of its seed did."""
        return self.stream_hash(record) in self.hashes[record.spec.seed]


def _common_step(runs: Sequence[Record]) -> int | None:
    """The last power of two that every run reached; None where all made the same number of steps."""
    steps = {r.budget.used.steps for r in runs}
    return None if len(steps) == 1 else 1 << (max(1, min(steps)).bit_length() - 1)


def grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """The values of pairs by their keys, in order."""
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def by_architecture(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records grouped by the architecture's label."""
    return grouped((record.spec.architecture_label, record) for record in records)


def one_per_seed(records: Sequence[Record]) -> list[Record]:
    """The first record of each seed."""
    return list({r.spec.seed: r for r in reversed(records)}.values())[::-1]


def reasons(records: Sequence[Record], shared: Common) -> str:
    """Why the row of these records is not ranked; empty where it may be."""
    return "; ".join([*_failures(one_per_seed(records)), *_disqualified(records, shared)])


def _failures(runs: Sequence[Record]) -> list[str]:
    """Like "2 of 3 seeds diverged: loss is not finite at step 12", worst first."""
    found = []
    for status in sorted({r.status for r in runs} - {"ok"}, key=severity, reverse=True):
        failed = [r for r in runs if r.status == status]
        message = failed[0].error.message.strip() if failed[0].error else ""
        if status == "unsupported" and len(failed) == len(runs):
            found.append(message or status)
            continue
        count = f"{len(failed)} of {len(runs)} seeds {status}"
        found.append(f"{count}: {message}" if message else count)
    return found


def _disqualified(records: Sequence[Record], shared: Common) -> list[str]:
    """Why runs that ended well may still not be ranked; each reason names its seeds."""
    done = [r for r in records if r.status == "ok"]
    if any(r.spec.pretrained for r in done):
        return ["external: trained elsewhere, on other data and budgets; shown, not ranked"]
    counts = Counter(r.spec.seed for r in records)
    repeated = {seed: ["several runs of the same seed"] for seed, count in counts.items() if count > 1}
    seeds = grouped(
        (reason, r.spec.seed) for r in done for reason in (*repeated.get(r.spec.seed, ()), *_objections(r, shared))
    )
    sizes = {(r.size.width, r.size.depth, r.size.params) for r in done if r.size is not None}
    found = ["its seeds are not of one size"] if len(sizes) > 1 else []
    found += [reason + _only(own, {*counts}) for reason, own in seeds.items()]
    return [*_failed_gates(done, {*counts}), *found]


def _only(seeds: Sequence[int], everyone: set[int]) -> str:
    """Like " (seed 1, 2)" where it is not all of them."""
    return "" if {*seeds} == everyone else f" (seed {', '.join(map(str, sorted({*seeds})))})"


def _failed_gates(records: Sequence[Record], everyone: set[int]) -> list[str]:
    """Every gate that any seed failed, with the worst that was measured."""
    gates = [(name, (gate, r.spec.seed)) for r in records for name, gate in r.eligibility.gates.items()]
    found = []
    for name, failed in sorted(grouped(pair for pair in gates if not pair[1][0].passed).items()):
        worst = max((gate for gate, _ in failed), key=lambda gate: math.inf if gate.measured is None else gate.measured)
        values = f"measured {_short(worst.measured)}, limit {_short(worst.limit)}"
        found.append(f"failed gate {name} ({values}){_only([seed for _, seed in failed], everyone)}")
    return found


def _short(number: float | None) -> str:
    return f"{number:.3g}" if isinstance(number, float) else str(number)


def _objections(record: Record, shared: Common) -> list[str]:
    """Why one run that ended well is not ranked."""
    if record.origin.kind == "reported":
        return ["only reported: nobody who publishes this board has made runs of that contribution again"]
    found, stop, machine = [], record.spec.stop, Machine.of(record)
    if record.score is None:
        found.append(f"did not reach {stop.target:g}" if stop and stop.target is not None else "no finite test score")
    if not record.eligibility.ranked and all(gate.passed for gate in record.eligibility.gates.values()):
        found.append("did not pass the gates")
    found += _excess(record)
    if not shared.stream_hash(record):
        found.append("no data hash")
    elif not shared.same_data(record):
        most = shared.hashes[record.spec.seed]
        found.append("data hash differs from the others'" if most else "data hashes disagree and none has a majority")
    for name, usual in shared.terms.items():
        if TERMS[name](record) not in usual:
            found.append(f"{name} differs from the others'" if usual else f"no majority agrees on the {name}")
    if stop is not None and stop.meter == "seconds" and machine not in shared.machine:
        what = "no majority agrees on the hardware"
        if shared.machine:
            what = f"other {Machine.differences([machine, *shared.machine])} than the others'"
        found.append(f"{what}; seconds are not comparable")
    return found


def _excess(record: Record) -> list[str]:
    """Where a run is too large or has used too much.

    It stays within tokens, steps and FLOPs; the step in which seconds run out is judged by the run's own gate.
    """
    found, match, stop = [], record.spec.match, record.spec.stop
    mismatch = None if record.size is None else record.size.mismatch
    if mismatch is not None and match is not None and abs(mismatch) > match.tolerance:
        found.append(f"size off its target by {mismatch:+.1%}, tolerance {match.tolerance:.1%}")
    if stop is not None and stop.meter != "seconds":
        used = record.budget.used.of(stop.meter)
        if used > stop.limit * (1 + 1e-9):
            found.append(f"used {used:.4g} {stop.meter}, more than its budget of {stop.limit:.4g}")
    return found
