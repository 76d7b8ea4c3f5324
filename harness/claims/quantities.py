"""What was measured for a claim: scores from the records of its suite, or the values of its experiment."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from harness.claims.plan import Claim, Margin, Scale, Score, claims
from harness.errors import UserError
from harness.records.files import read_json, to_json, write_atomic
from harness.records.record import Record
from harness.records.store import Store, default_root, named_by


def folder(root: Path | None = None) -> Path:
    """Where claims are measured, beside the suites that are ranked: a folder for each suite, a file an experiment."""
    return (root or default_root()) / "claims"


class Column(NamedTuple):
    """What is compared: a metric of a task in a track."""

    task: str
    track: str
    metric: str
    primary: bool
    """Whether the task is ranked by it."""
    higher: bool = True
    """Whether more is better."""


class Point(NamedTuple):
    """A cell of a task as a point: what it costs, and its scores by seed."""

    row: str
    track: str
    cost: float
    scores: list[float]
    """By seed, losses negative, so that more is better."""


@dataclass(frozen=True)
class Measured:
    """All that was measured for a claim at a scale."""

    values: dict[str, list[float]] = field(default_factory=dict)
    """By the name that an experiment gives a quantity, by seed."""
    scores: dict[Column, dict[str, list[float]]] = field(default_factory=dict)
    """By row, by seed."""
    costs: dict[tuple[str, str, str, str], list[float]] = field(default_factory=dict)
    """By task, track, row and what is spent (see `Margin.by`), by seed."""
    chance: dict[str, float] = field(default_factory=dict)
    """By task, what guessing scores."""
    tables: list[tuple[str, str]] = field(default_factory=list)
    """What the suite fills, as (task, track), made or not."""
    left_out: list[str] = field(default_factory=list)
    """Runs without a score, and why."""
    diverged: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By task, track and row, how many of its seeds score what chance does because they diverged."""
    seconds: float = 0.0
    """Of training or measuring, all together."""
    made: list[str] = field(default_factory=list)
    """With which commits, on which hardware."""

    def rows(self, quantity: str | Score) -> tuple[list[float], list[list[float]]]:
        """The values of a quantity, and those of the rows beside it, which tell of its scatter.

        Raises:
            UserError: it is one of several.
        """
        if isinstance(quantity, str):
            return self.values.get(quantity, []), []
        columns = [column for column in self.scores if _fits(quantity, column)]
        alike = {column._replace(task="") if quantity.over else column for column in columns}
        if len(alike) > 1:
            raise UserError(f"{quantity} is one of {len(alike)}: say the task, the track and the metric")
        asked = {table for table in self.tables if quantity.over and quantity.track in (None, table[1])}
        if asked - {(column.task, column.track) for column in columns}:
            return [], []
        others = _mean([self.scores[column] for column in columns])
        return others.pop(quantity.row, []), [*others.values()]

    def points(self, margin: Margin) -> list[Point]:
        """The scores of its task in all tracks, each with its cost; none where a cell lacks either.

        Raises:
            UserError: it is one of several tasks.
        """
        columns = [column for column in self.scores if column.primary and margin.task in (None, column.task)]
        if len(tasks := {column.task for column in columns}) > 1:
            raise UserError(f"{margin} is one of {len(tasks)}: say the task")
        lacking = {track for task, track in self.tables if margin.task in (None, task)} - {c.track for c in columns}
        cells = [(column, row) for column in columns for row in {row: None for c in columns for row in self.scores[c]}]
        found = []
        for column, row in cells:
            scores, costs = self.scores[column].get(row), self.costs.get((column.task, column.track, row, margin.by))
            if lacking or scores is None or costs is None:
                return []
            sign = 1 if column.higher else -1
            found.append(Point(row, column.track, fmean(costs), [sign * score for score in scores]))
        if found and (chance := self.chance.get(columns[0].task)) is not None:
            found.append(Point("chance", "", 0.0, [chance if columns[0].higher else -chance]))
        return found

    def cells(self) -> Float[np.ndarray, "rows tasks tracks seeds"]:
        """The scores that tasks are ranked by; NaN where a cell has fewer seeds than another, or none."""
        ranked = {(column.task, column.track): own for column, own in self.scores.items() if column.primary}
        rows, tables = {row: None for own in ranked.values() for row in own}, [*ranked, *self.tables]
        names, tasks, tracks = [*rows], [*dict.fromkeys(t for t, _ in tables)], [*dict.fromkeys(t for _, t in tables)]
        seeds = max((len(scores) for own in ranked.values() for scores in own.values()), default=0)
        cells = np.full((len(names), len(tasks), len(tracks), seeds), np.nan)
        for (task, track), own in ranked.items():
            for row, scores in own.items():
                cells[names.index(row), tasks.index(task), tracks.index(track), : len(scores)] = scores
        return cells


def _mean(tables: Sequence[Mapping[str, list[float]]]) -> dict[str, list[float]]:
    """The scores of each row that is in all tables, averaged over them, for as many seeds as it has in each."""
    rows = [row for row in tables[0] if all(row in table for table in tables)] if tables else []
    return {row: [*map(fmean, zip(*(table[row] for table in tables), strict=False))] for row in rows}


def _fits(score: Score, column: Column) -> bool:
    metric = column.primary if score.metric is None else score.metric == column.metric
    return metric and score.task in (None, column.task) and score.track in (None, column.track)


def suite_of(claim: Claim, scale: Scale) -> str:
    """What the folder of a claim's suite is called at a scale; `small` is the suite as it is written."""
    return f"{claim.suite}" if scale == "small" else f"{claim.suite}-{scale}"


def read(name: str, scale: Scale, root: Path | None = None) -> Measured:
    """What was measured for a claim so far, which may be nothing.

    Raises:
        UserError: a file cannot be read.
    """
    claim = claims()[name]
    if claim.suite is not None:
        return _of_suite(Store(suite_of(claim, scale), folder(root)))
    path = _file(name, scale, root)
    if not path.is_file():
        return Measured()
    data, wrong = read_json(path), UserError("is no file of `zoobench claims`", file=path)
    values, seconds, made = data.get("values"), data.get("seconds"), data.get("made")
    if not isinstance(values, dict) or not isinstance(seconds, (int, float)) or not isinstance(made, list):
        raise wrong
    for own in values.values():
        if not isinstance(own, list) or not all(isinstance(value, (int, float)) for value in own):
            raise wrong
    return Measured(values, seconds=seconds, made=[*map(str, made)])


def write(name: str, scale: Scale, measured: Measured, root: Path | None = None) -> Path:
    """Keep what an experiment measured; returns the file."""
    path = _file(name, scale, root)
    data: dict[str, Any] = {"values": measured.values, "seconds": measured.seconds, "made": measured.made}
    write_atomic(path, to_json(data))
    return path


def _file(name: str, scale: Scale, root: Path | None) -> Path:
    return folder(root) / (f"{name}.json" if scale == "small" else f"{name}-{scale}.json")


def _of_suite(store: Store) -> Measured:
    described = store.described() if store.exists() else {}
    records = named_by(described, store.records()) if store.exists() else []
    seconds = math.fsum(record.budget.used.seconds for record in records)
    tables = [(task, track) for task, track in described.get("order", [])]
    found = Measured(seconds=seconds, made=_made(records), tables=tables)
    for record in records:
        spec, metrics = record.spec, record.metrics
        if spec.kind != "final":
            continue
        table = spec.task_label, spec.track
        if metrics.chance is not None:
            found.chance[spec.task_label] = metrics.chance
        for by, cost in _costs(record).items():
            found.costs.setdefault((*table, spec.architecture_label, by), []).append(cost)
        if why := _left_out(record):
            parts = spec.architecture_label, spec.task_label, spec.track, f"seed {spec.seed}: {why}"
            found.left_out.append(" · ".join(filter(None, parts)))
        if record.status == "diverged":
            found.diverged[spec.task_label, spec.track, spec.architecture_label] += 1
        for metric, value in _scores(record).items() if not why else ():
            column = Column(*table, metric, metric == metrics.primary, metrics.higher_is_better)
            found.scores.setdefault(column, {}).setdefault(spec.architecture_label, []).append(value)
    return found


def _left_out(record: Record) -> str:
    """Why a run says nothing; empty for one that ended well, or diverged."""
    if record.status == "ok" and not record.eligibility.ranked:
        return ", ".join(name for name, gate in record.eligibility.gates.items() if not gate.passed)
    return "" if record.status in ("ok", "diverged") else record.status


def _scores(record: Record) -> dict[str, float]:
    """The test scores of a run; of one that diverged what chance scores."""
    metrics = record.metrics
    if record.status == "diverged":
        return {} if metrics.chance is None else {metrics.primary: metrics.chance}
    return {name: value for name, value in metrics.test.items() if math.isfinite(value)}


def _costs(record: Record) -> dict[str, float]:
    """What `Margin.by` may name, as far as the record knows it."""
    costs = {"size": record.size.target if record.size else None, "latency": record.speed.latency_seconds}
    return {by: float(cost) for by, cost in costs.items() if cost is not None}


def _made(records: Sequence[Record]) -> list[str]:
    found = {(r.provenance.commit, r.provenance.hardware) for r in records if r.provenance.commit}
    return sorted(f"{commit} on {hardware}" for commit, hardware in found)
