"""What a suite costs on devices of a kind: device hours, wall time, money, and how its seconds there are known."""

import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from harness import machine, processes
from harness.errors import UserError
from harness.execute.estimate import Planned
from harness.execute.queue import Queue, simulate
from harness.plan.expand import expand
from harness.plan.trials import STARTUP
from harness.records.meters import Meters
from harness.records.spec import TUNABLE, Cell, RunSpec
from harness.records.store import stores
from harness.suite.loaded import LoadedSuite
from harness.units import clock, human

START = 2.0
"""Seconds of a run whatever its model: its process, what torch loads, the fixed part of the gates."""
ALONG = 0.07
"""What goes on beside the steps (batches and their hash, the watch, logs, the reference), for a second of them."""
LAUNCH = 10e-6
"""Seconds in which torch starts one kernel of a GPU."""
RANGE = 3.0
"""The factor by which an extrapolation may be wrong, either way: a guess."""
EXTRAPOLATED = "extrapolated"


class Kind(NamedTuple):
    """A kind of GPU: how its driver calls it, and dense matrix products in TFLOP/s by its vendor's data sheet."""

    name: str
    bf16: float
    fp32: float


KINDS = {
    "a100": Kind("A100", 312, 19.5),
    "b200": Kind("B200", 2250, 75),
    "h100": Kind("H100", 989, 67),
    "h200": Kind("H200", 989, 67),
    "l4": Kind("L4", 121, 30.3),
    "mi300x": Kind("MI300X", 1307, 163),
    "rtx4090": Kind("RTX 4090", 165, 82.6),
}
Span = tuple[float, float, float]
"""The least, the likely and the most: all the same where nothing is extrapolated."""


@dataclass(frozen=True)
class Cost:
    """What a suite costs on some devices of one kind."""

    kind: str
    devices: int
    seeds: int
    """Of each row."""
    device_hours: Span
    """What runs take, failures included."""
    wall_seconds: Span
    price: Span | None
    in_use: float
    """Device hours over all that there are until the last run ends."""
    lost_hours: float
    """Device hours that failures cost."""
    lost_runs: int
    """Runs that fail more than `limits.retries` times."""
    sources: dict[str, int]
    """For how many rows the seconds of a step are known how."""


class _Pace(NamedTuple):
    """Seconds of a row there for a second here, and how that is known."""

    ratio: float = 1.0
    source: str = "measured here"


def check_kind(kind: str) -> None:
    """Raise a UserError for a kind of device that is not known."""
    if kind not in ("cpu", *KINDS):
        raise UserError(f"no kind of device is called {kind!r}; known: cpu, {', '.join(KINDS)}", file="--on")
    if kind == "cpu" and machine.pick().type != "cpu":
        raise UserError("steps are measured on the GPU here; CUDA_VISIBLE_DEVICES= hides it", file="--on cpu")


def here(cells: list[Planned], loaded: LoadedSuite) -> float:
    """Seconds of wall time on this machine, with as many runs at a time as `zoobench run` makes."""
    devices, each = len(machine.cards()) or processes.default_workers(), loaded.suite.limits.devices
    paces = {cell.cell: _Pace(1 / each) for cell in cells if cell.steps}
    return _queue(cells, loaded, paces, max(1, devices // each)).wall


def cost(
    cells: list[Planned],
    loaded: LoadedSuite,
    kind: str,
    devices: int,
    *,
    price: float | None = None,
    failures: float = 0.0,
    root: Path | None = None,
) -> Cost:
    """What the suite costs on so many devices of a kind.

    Args:
        cells: measured by `estimate.plan`. price: of a device hour. failures: of a device in an hour.
        root: the folder of results in which records of that kind are looked for.

    Raises:
        UserError: there are fewer devices than a run is to be trained on.
    """
    each, paces = loaded.suite.limits.devices, _paces(cells, loaded, kind, root)
    if devices < each:
        raise UserError(f"each run is to be trained on {each} devices; there are {devices}", file="--on")
    sources = Counter(pace.source for pace in paces.values())
    factors = (1 / RANGE, 1.0, RANGE) if sources[EXTRAPOLATED] else (1.0, 1.0, 1.0)
    low, likely, high = (_queue(cells, loaded, paces, devices // each, failures * each, off) for off in factors)
    hours = (low.busy * each / 3600, likely.busy * each / 3600, high.busy * each / 3600)
    return Cost(
        kind,
        devices,
        len(loaded.suite.first_seeds),
        hours,
        (low.wall, likely.wall, high.wall),
        None if price is None else (price * hours[0], price * hours[1], price * hours[2]),
        likely.busy * each / (likely.wall * devices or 1.0),
        likely.lost * each / 3600,
        likely.lost_runs,
        {source: count for source, count in sources.items() if count},
    )


def _queue(
    cells: list[Planned],
    loaded: LoadedSuite,
    paces: dict[Cell, _Pace],
    slots: int,
    failures: float = 0.0,
    off: float = 1.0,
) -> Queue:
    """The runs in the order of the pool: round after round of trials, then the final ones.

    Args:
        failures: of a slot in an hour. off: the factor by which what is extrapolated is wrong.
    """
    known, tuning, limits = {cell.cell: cell for cell in cells}, loaded.suite.tuning, loaded.suite.limits
    finals = [spec for spec in expand(loaded) if spec.cell in paces]

    def seconds(spec: RunSpec, share: float, scoring: float) -> float:
        ratio, source = paces[spec.cell]
        ratio *= off if source == EXTRAPOLATED else 1.0
        step = 1.0 if spec.stop and spec.stop.meter == "seconds" else ratio
        return known[spec.cell].seconds * share * (1 + ALONG) * step + scoring * ratio

    rounds = [[seconds(spec, 1.0, known[spec.cell].scoring) for spec in finals]]
    if tuning:
        firsts = {spec.cell: spec for spec in finals}.values()
        tries = [seconds(spec, tuning.budget, known[spec.cell].trial_scoring) for spec in firsts]
        late = max(0, tuning.effort - STARTUP) if tuning.sampler == "tpe" else 0
        rounds[:0] = [[each for each in tries for _ in range(count)] for count in (tuning.effort - late, *[1] * late)]
    again: dict[str, Any] = {"failures": failures / 3600, "checkpoint": limits.checkpoint, "retries": limits.retries}
    return simulate(rounds, slots, start=START * off, **again)


def _paces(cells: list[Planned], loaded: LoadedSuite, kind: str, root: Path | None) -> dict[Cell, _Pace]:
    """The pace of each row that is trained: this machine's, if it is of that kind; what records say; extrapolated."""
    trained, each = {cell.cell: cell for cell in cells if cell.steps}, loaded.suite.limits.devices
    if kind == "cpu" or _is(kind, machine.hardware(machine.pick().type)):
        return dict.fromkeys(trained, _Pace(1 / each))
    recorded, paces, wrong = _recorded(kind, loaded, root), dict[Cell, _Pace](), list[float]()
    for spec in {spec.cell: spec for spec in expand(loaded) if spec.cell in trained}.values():
        cell = trained[spec.cell]
        paces[spec.cell] = _Pace(_extrapolated(KINDS[kind], spec, cell) / each, EXTRAPOLATED)
        if used := recorded.get(_work(spec, cell.size)):
            ratio = used.seconds / used.steps * cell.steps / cell.seconds
            wrong.append(ratio / paces[spec.cell].ratio)
            paces[spec.cell] = _Pace(ratio, f"in records of {kind}")
    off = statistics.median(wrong or [1.0])
    return {
        cell: _Pace(r * off, source) if source == EXTRAPOLATED else _Pace(r, source)
        for cell, (r, source) in paces.items()
    }


def _is(kind: str, hardware: str | None) -> bool:
    """Whether a device of that name is one of the kind, and no slice of one."""
    return bool(re.search(rf"\b{KINDS[kind].name}\b(?!.*\bMIG\b)", hardware or ""))


def _recorded(kind: str, loaded: LoadedSuite, root: Path | None) -> dict[str, Meters]:
    """What runs on that kind of device have used, by `_work`."""
    limits, found = loaded.suite.limits, dict[str, Meters]()
    layout = (limits.devices, limits.shard, limits.recompute)
    for record in (record for store in stores(root) for record in store.records()):
        made, used = record.provenance, record.budget.used
        alike = _is(kind, made.hardware) and (made.devices, made.shard, made.recompute) == layout
        if alike and record.size and used.steps and used.seconds:
            total = found.setdefault(_work(record.spec, record.size), Meters())
            total.steps, total.seconds = total.steps + used.steps, total.seconds + used.seconds
    return found


def _work(spec: RunSpec, size: Any) -> str:
    """What decides on the work of a training step: the same where seeds, rates and budgets alone differ."""
    options = {name: value for name, value in spec.options.items() if name not in TUNABLE}
    how = spec.train and (spec.train.batch_tokens, spec.train.accumulate, spec.train.precision == "fp32")
    return json.dumps([spec.architecture, options, size.width, size.depth, spec.task, spec.task_options, how])


def _extrapolated(kind: Kind, spec: RunSpec, cell: Planned) -> float:
    """Seconds there for one here: what matrix products reach here by the kind's peak, so that the utilisation is the
    same; but no step takes less than to start its kernels."""
    assert spec.train is not None
    device, peak = machine.pick(), kind.fp32 if spec.train.precision == "fp32" else kind.bf16
    reached = _matmul_speed(device, machine.resolve_precision(spec.train.precision, device))
    return max(reached / (peak * 1e12), LAUNCH * cell.kernels * cell.steps / cell.seconds)


@cache
def _matmul_speed(device: torch.device, precision: str) -> float:
    return machine.matmul_speed(device, torch.bfloat16 if precision == "bf16" else torch.float32)


def lines(costs: Iterable[Cost]) -> Iterator[str]:
    """What a suite costs on devices of each kind, and what that leaves out."""
    costs = [*costs]
    several = len({one.seeds for one in costs}) > 1
    for one in costs:
        seeds = f" with {one.seeds} seeds" if several else ""
        price = "" if one.price is None else f", price {_shown(one.price, lambda value: f'{value:,.2f}')}"
        lost = f", {human(one.lost_hours)} of them lost to failures" if one.lost_hours else ""
        lost += f" and {one.lost_runs} runs given up" if one.lost_runs else ""
        known = ", ".join(f"{source} for {count} rows" for source, count in one.sources.items())
        yield (
            f"{one.kind}:{one.devices}{seeds}: {_shown(one.device_hours, human)} device hours{lost}{price}; "
            f"{_shown(one.wall_seconds, clock)} of wall time, devices {one.in_use:.0%} in use; steps {known}"
        )
    if any(EXTRAPOLATED in one.sources for one in costs):
        yield (
            f"extrapolated, not measured, never checked on a GPU: from steps here by the ratio of peak rates, or from "
            f"{LAUNCH * 1e6:.0f} µs a kernel where that is more; the range is a factor of {RANGE:.0f} either way"
        )
    yield "not in it: first-time compilation, a GPU's start-up, data, questions, lack of memory; see docs/scale.md"


def _shown(span: Span, words: Callable[[float], str]) -> str:
    low, likely, high = map(words, span)
    return likely if span[0] == span[2] else f"~{likely} ({low} to {high})"
