"""A suite as `zoobench show` shows it: what it extends merged in, its difficulty spelled out, and nothing built."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import Any

import yaml
from pydantic import BaseModel

import tasks
from harness.records.meters import METERS
from harness.suite.load import find_suite, read_suite
from harness.suite.schema import MATCHED, Suite, TaskEntry
from harness.units import short

Row = dict[str, Any]
SETTINGS = ("budget", "tuning", "model", "train")
"""The keys of a row that hold settings."""


def describe(name: str) -> Row:
    """A suite by name or path, as JSON: who plays what under which budget, how tuned, and how many runs that makes.

    Raises:
        UserError: there is no such suite, or its YAML is wrong.
    """
    path = find_suite(name)
    suite = read_suite(path)
    cells = [(task, row) for task in suite.tasks for row in suite.architectures if task.plays(row.label)]
    players = [row for task, row in cells for _ in suite.tracks_of(task)]
    trained = sum(not row.pretrained for row in players)
    return {
        "name": suite.suite,
        "about": " ".join(suite.about.split()),
        "path": str(path),
        "extends": suite.extends,
        "difficulty": suite.difficulty,
        "architectures": {row.label: {row.name: row.options} for row in suite.architectures},
        "tasks": {task.label: _task(task, suite) for task in suite.tasks},
        "budget": ({} if suite.difficulty else {"stop": _given(suite.budget.stop)}) | _given(suite.budget),
        "tracks": {label: _given(track) for label, track in suite.tracks.items()},
        "tuning": suite.tuning and _given(suite.tuning),
        "seeds": suite.seeds if suite.seed_rule is None else asdict(suite.seed_rule),
        "model": suite.model,
        "train": _given(suite.train),
        "runs": trained * len(suite.first_seeds) + len(players) - trained,
        "trials": trained * (suite.tuning.effort if suite.tuning else 0),
    } | ({"most_runs": trained * len(suite.all_seeds) + len(players) - trained} if suite.seed_rule else {})


def _task(entry: TaskEntry, suite: Suite) -> Row:
    """What the suite says about one task, on top of what its difficulty says."""
    given = {key: value for key, value in _given(entry).items() if key not in ("name", "options", "label")}
    level = _difficulty(entry.name, suite.difficulty)
    if level is None:
        return {entry.name: entry.options, **given}
    budget = {"stop": dict(level.stop), "match": {"params": level.params}}
    left_open = {key: value for key, value in budget.items() if key not in suite.budget.model_fields_set}
    for key in ("model", "train"):
        if merged := {**getattr(level, key), **given.get(key, {})}:
            given[key] = merged
    return {entry.name: level.under(entry.options), **left_open, **given}


def _difficulty(task: str, name: str | None) -> tasks.Difficulty | None:
    """A difficulty of a task; None where it has none of that name, or comes from a plug-in that was not imported."""
    with suppress(KeyError):
        found: tasks.Difficulty | None = tasks.get(task).make.difficulties.get(name or "")
        return found
    return None


def _given(part: BaseModel) -> Row:
    return part.model_dump(exclude_unset=True)


def format_settings(value: Any) -> str:
    """Settings on one line, as a suite states them: `{match: {params: 200k}, stop: {tokens: 600k}}`."""
    text: str = yaml.safe_dump(_shortened(value), default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def _shortened(value: Any, key: str = "") -> Any:
    """Settings with long counts in three figures, and no match as a suite says it."""
    if isinstance(value, dict):
        return {key: _shortened(inner, key) for key, inner in value.items()}
    if key == "match" and value is None:
        return "none"
    return short(value) if key in (*METERS, *MATCHED) and value and value >= 1000 else value


def format_entry(entry: tuple[str, Row]) -> str:
    """`linformer: {k: 16}`; behind the label of an entry the name of what it is, where that is another."""
    label, settings = entry
    name, options = next(iter(settings.items()))
    shown = [f"{name}: {format_settings(options)}" if options else name]
    shown += [f"{key}: {format_settings(settings[key])}" for key in [*settings][1:]]
    return ", ".join(shown) if label == name else f"{label}  ({', '.join(shown)})"


def format_track(track: tuple[str, Row]) -> str:
    """`flops: {match: {flops_per_token: 1.5M}, stop: {tokens: 1M}}`."""
    return f"{track[0]}: {format_settings(track[1])}"
