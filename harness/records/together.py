"""What must hold between records: of one suite, one row, one task and seed."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from statistics import median
from typing import Any, TypeAlias

from harness.records.checks import close, stream_by_step, telling
from harness.records.record import Record
from harness.records.spec import TUNABLE, RunSpec

Odd: TypeAlias = "tuple[Record, str, str]"
"""A record, what was checked, and why it does not hold."""
Reading: TypeAlias = "Callable[[Record], Iterable[tuple[Any, Any]]]"
"""Keys, and a value that is the same wherever the key is."""


def together(records: Sequence[Record], ours: Sequence[Record] = ()) -> Iterator[Odd]:
    """The records that do not fit the others, or `ours`, which are trusted."""
    for what, (why, read) in SHARED.items():
        yield from ((record, what, why) for record in _odd(records, ours, read))
    yield from _copies(records)
    yield from _hurried(records)


def of_one_suite(records: Sequence[Record], *, uneven: bool = False) -> Iterator[Odd]:
    """The records of one state of a suite that do not fit its others; where it adds seeds, rows are `uneven`."""
    yield from ((record, "suite", "says another suite") for record in _odd(records, (), lambda r: [("suite", r.suite)]))
    yield from ((record, "suite", SETTINGS) for record in _odd(records, (), _settings))
    yield from _tuned(records)
    yield from _seeds(records, uneven=uneven)


def _odd(records: Sequence[Record], ours: Sequence[Record], read: Reading) -> Iterator[Record]:
    """The records whose value of what `read` gives is not ours, or where we have none not that of most others."""
    usual: defaultdict[Any, Counter[Any]] = defaultdict(Counter)
    values = [[*read(record)] for record in records]
    for own, weight in (([[*read(record)] for record in ours], len(records) + 1), (values, 1)):
        for pairs in own:
            for key, value in pairs:
                usual[key][value] += weight
    most = {key: [v for v, n in counts.items() if n == max(counts.values())] for key, counts in usual.items()}
    return (record for record, own in zip(records, values, strict=True) if any([v] != most[k] for k, v in own))


def _streams(record: Record) -> Iterator[tuple[Any, Any]]:
    spec = record.spec
    if spec.train is not None:
        key = (record.suite, spec.task_label, spec.fingerprint, spec.seed, spec.train.batch_tokens)
        yield from (((*key, step), known) for step, known in stream_by_step(record).items())


def _row(spec: RunSpec) -> str:
    """A key of the runs that differ in nothing but their seed and what is tuned."""
    return spec.at(dict.fromkeys(spec.point, 0)).replace(seed=0, tuning=None).run_id


def _sizes(record: Record) -> Iterator[tuple[Any, Any]]:
    if record.status == "ok" and record.size is not None:
        size = record.size.replace(mismatch=None)
        yield _row(record.spec), json.dumps([size.to_dict(), record.budget.flops_per_token])


def _place(record: Record) -> tuple[Any, ...]:
    """A key of the runs of a row that were made on one machine, in one way."""
    made = record.provenance
    how = (made.device, made.threads, made.precision, made.devices, made.shard, made.recompute)
    return _row(record.spec), made.hardware, *how


def _computed(record: Record) -> Iterator[tuple[Any, Any]]:
    """Kernels, bytes and settings of its own of a row, by code and machine; bytes where they are the step's alone."""
    made = record.provenance
    if record.status == "ok" and record.budget.used.steps and made.device == "cpu":
        key = (*_place(record), made.commit)
        bytes_ = record.memory.peak_bytes if record.memory.before_bytes is None else None
        own = [one.to_dict() for one in record.defaults or ()]
        yield key, json.dumps([made.kernels, bytes_, own], sort_keys=True)


def _metrics(record: Record) -> Iterator[tuple[Any, Any]]:
    """What a task is ranked by, and bits per nat, which its data alone decides."""
    spec, metrics = record.spec, record.metrics
    key = (record.suite, spec.task_label, spec.fingerprint)
    yield key, json.dumps(metrics.replace(valid={}, test={}, tune=None).to_dict(), sort_keys=True)
    for split in ("tune", "valid", "test"):
        scores = metrics.on(split)
        for name, value in scores.items():
            base, at, multiple = name.partition("@")
            loss = scores.get(f"loss{at}{multiple}")
            if base.startswith("bits_per") and value and loss:
                yield (*key, split, name, spec.evaluate.limit(split)), f"{value / loss:.9g}"


def _limits(record: Record) -> Iterator[tuple[Any, Any]]:
    """The limit on test examples that were trained on, which data and steps alone decide."""
    gate, spec, used = record.eligibility.gates.get("test_overlap"), record.spec, record.budget.used
    if gate is not None:
        key = (record.suite, spec.task_label, spec.fingerprint, spec.seed, used.tokens, spec.evaluate.test)
        yield key, gate.limit


def _references(record: Record) -> Iterator[tuple[Any, Any]]:
    reference, spec = record.speed.reference, record.spec
    if reference is not None and reference.parameters is not None:
        yield (record.suite, spec.task_label, spec.fingerprint), reference.parameters


SHARED: dict[str, tuple[str, Reading]] = {
    "data": ("consumed other batches than other runs of its task and seed", _streams),
    "size": ("its size or its FLOPs differ from those of its other seeds", _sizes),
    "provenance": ("its kernels, bytes or defaults differ from those of its other seeds on this machine", _computed),
    "scores": ("what it is ranked by, or its bits per nat, is not that of other runs of its task", _metrics),
    "speed": ("its reference is larger or smaller than that of other runs of its task", _references),
    "gates": ("its limit on test_overlap is not that of other runs of its task and seed", _limits),
}
"""What records share, by what a finding calls it."""
TIMES: dict[str, Callable[[Record], float | None]] = {
    "makes a step": lambda record: record.budget.used.seconds / record.budget.used.steps,
    "decodes a token": lambda record: record.speed.decode_seconds,
    "answers an example": lambda record: record.speed.latency_seconds,
}
"""What the runs of a row take about as long for."""
FASTER = 10
"""How many times as fast as the median of its row a run may be: of 7,000 published ones, some on a machine that had
other work, the fastest is so 2.3 times."""
SETTINGS = "its settings are not those of the other runs of its task"


def _settings(record: Record) -> Iterator[tuple[Any, Any]]:
    """What a suite decides for every row of a task, but for the rows that have a width of their own."""
    spec = record.spec
    if spec.train is not None and not spec.pretrained:
        written = spec.at(dict.fromkeys((n for n, place in TUNABLE.items() if place == "train"), 0)).to_dict()
        names = ("task", "task_options", "role", "stop", "train", "evaluate")
        shared = {name: written[name] for name in (*names, *(("match",) if "width" not in spec.options else ()))}
        key = (record.suite, spec.task_label, spec.track, spec.kind, "width" in spec.options)
        yield key, json.dumps([shared, spec.fingerprint], sort_keys=True)


def _tuned(records: Sequence[Record]) -> Iterator[Odd]:
    """Final runs have the values that did best in their cell's trials."""
    tried = defaultdict(list)
    for record in records:
        if record.spec.kind == "trial":
            tried[record.spec.cell].append(record)
    best = {}
    for cell, own in tried.items():
        costs = [_cost(record) for record in own]
        if not math.isinf(min(costs)):
            best[cell] = [r.spec.point for r, cost in zip(own, costs, strict=True) if cost == min(costs)]
    usual = max(Counter(map(len, tried.values())).items(), key=lambda item: item[::-1], default=(0, 0))[0]
    few = (own[0] for own in tried.values() if len(own) < usual)
    yield from ((record, "tuning", f"its row has fewer trials than others, which have {usual}") for record in few)
    for record in records:
        if record.spec.kind == "final" and record.spec.point not in best.get(record.spec.cell, [record.spec.point]):
            yield record, "tuning", "its learning rate or what else is tuned is not what its trials chose"


def _cost(record: Record) -> float:
    """What trials are chosen by, smaller is better (`harness.plan.trials.objective`)."""
    value = record.metrics.score(record.spec.evaluate.split or "valid")
    if record.status != "ok" or value is None or not math.isfinite(value):
        return math.inf
    return -value if record.metrics.higher_is_better else value


def _seeds(records: Sequence[Record], *, uneven: bool) -> Iterator[Odd]:
    """Every row of a table has the seeds that most have; if `uneven`, all below its last."""
    tables: defaultdict[Any, defaultdict[Any, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.spec.kind == "final" and not record.spec.pretrained:
            table = (record.suite, record.spec.task_label, record.spec.track)
            tables[table][record.spec.cell].append(record)
    for rows in tables.values():
        seeds = Counter(frozenset(r.spec.seed for r in own) for own in rows.values())
        usual = max(seeds, key=lambda known: (seeds[known], len(known)))
        for own in rows.values():
            found = {r.spec.seed for r in own}
            if lacking := ({*range(max(found))} if uneven else usual) - found:
                whose = "and has later ones" if uneven else "which others have"
                yield own[0], "seeds", f"its row lacks seed {', '.join(map(str, sorted(lacking)))}, {whose}"
            if len(own) > len(found):
                yield own[0], "seeds", "its row has several runs of a seed"


def _copies(records: Sequence[Record]) -> Iterator[Odd]:
    """No two runs of a cell lost the same at most points, or in the end: other seeds and rates give other losses."""
    seen = defaultdict[Any, list[tuple[Record, tuple[float | None, ...], set[tuple[str, float]]]]](list)
    for record in records:
        losses, ends = tuple(point.loss for point in record.curve), _ends(record)
        for other, theirs, others in seen[record.spec.cell]:
            same = sum(one == two for one, two in zip(losses, theirs, strict=False))
            copied = len(losses) > 2 and 2 * same > len(losses)
            if not (copied or ends & others) or other.run_id == record.run_id or _alike(other.spec, record.spec):
                continue
            if copied:
                yield record, "curve", f"is that of {other.run_id}"
            else:
                shared = ", ".join(sorted(what for what, _ in ends & others))
                yield record, "scores", f"its {shared} is, to the last digit, that of {other.run_id}"
        seen[record.spec.cell].append((record, losses, ends))


def _ends(record: Record) -> set[tuple[str, float]]:
    """The losses that no other run ends with; none of one without training, whose seeds change nothing."""
    splits = ("tune", "valid", "test") if record.budget.used.steps else ()
    return {(f"{name} on {split}", loss) for split in splits for name, loss in telling(record, split).items()}


def _alike(one: RunSpec, two: RunSpec) -> bool:
    """Whether two runs begin alike: one seed, the same values of all that is tuned."""
    return one.seed == two.seed and all(close(float(v), float(two.point.get(k, v))) for k, v in one.point.items())


def _hurried(records: Sequence[Record]) -> Iterator[Odd]:
    """No run is much faster than most of its row on its machine; slower it may be, as machines have other work."""
    rows: defaultdict[Any, list[Record]] = defaultdict(list)
    for record in records:
        if record.status == "ok" and record.budget.used.steps:
            rows[_place(record), json.dumps(record.provenance.kernels, sort_keys=True)].append(record)
    for own, (does, seconds) in product(rows.values(), TIMES.items()):
        times = [(record, value) for record in own if (value := seconds(record)) is not None]
        usual = median(value for _, value in times) if len(times) > 2 else 0.0
        for record, value in times:
            if value * FASTER < usual:
                yield record, "speed", f"{does} in {value:g} s; the median of its row on this machine is {usual:g} s"
