"""From records to what others read: boards, comparisons, status, and the check that published records are sound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from harness import board as boards
from harness.errors import UserError
from harness.execute.runner import baselines, current
from harness.plan import trials
from harness.plan.expand import expand
from harness.records.record import STATUSES, Record
from harness.records.store import Store, default_root, digest
from harness.suite.load import load
from zoo.registry import nearest


def board(
    suite: str, overrides: tuple[str, ...] = (), root: Path | None = None, *, save: bool = True
) -> tuple[boards.Board, Path]:
    """The board of a suite's records, written beside them unless `save` is false; and its folder.

    Raises:
        UserError: there are no records yet.
    """
    loaded = load(suite, overrides)
    store = Store(loaded.name, root)
    _, records = current(loaded, store)
    if not any(record.spec.kind == "final" for record in records):
        raise UserError(f"no finished runs yet; start them with: zoobench run {suite}", file=store.folder)
    order = [(question.label, track) for question in loaded.suite.tasks for track in loaded.tracks]
    made = boards.make(
        loaded.name,
        [record.to_dict() for record in records],
        baselines(loaded, store),
        loaded.suite.about,
        order,
        loaded.suite.reference or "",
        loaded.suite.targets,
        {question.label: question.only for question in loaded.suite.tasks if question.only},
    )
    folder = store.folder / "board"
    if save:
        boards.write(made, [record.to_dict() for record in records], folder)
    return made, folder


def show(made: boards.Board, console: Console) -> None:
    """The board on a terminal."""
    boards.render(made, console)


def compare(
    first: str, second: str, suite: str, overrides: tuple[str, ...] = (), root: Path | None = None
) -> list[dict[str, Any]]:
    """Two rows of a board, task by task: their seeds side by side, and whether the board's model separates them."""
    made, _ = board(suite, overrides, root, save=False)
    everyone = sorted({row.architecture for task in made.tasks for row in task.rows})
    found = []
    for task in made.tasks:
        rows = {row.architecture: row for row in task.rows}
        for name in (first, second):
            if name not in everyone:
                raise UserError(f"no row {name!r} on the board of {suite}{nearest(name, everyone)}")
        if not rows.keys() >= {first, second}:
            continue  # one of the two does not play this task
        a, b = rows[first], rows[second]
        common = sorted(set(a.seeds) & set(b.seeds))
        scores = {s: (a.scores[a.seeds.index(s)], b.scores[b.seeds.index(s)]) for s in common}
        ranked = a.ranked and b.ranked
        found.append(
            {
                "task": task.task,
                "track": task.track,
                "metric": task.metric,
                "seeds": common,
                "scores": {str(s): list(pair) for s, pair in scores.items()},
                "difference": sum(x - y for x, y in scores.values()) / len(scores) if scores else None,
                "separated": not a.groups & b.groups if ranked else None,
                "detectable": task.mdd,
                "note": "; ".join(f"{row.architecture}: {row.reason}" for row in (a, b) if row.reason),
            }
        )
    return found


def show_comparison(first: str, second: str, rows: list[dict[str, Any]], console: Console) -> None:
    """A comparison as a table."""
    table = Table(title=f"{first} against {second}", title_justify="left", header_style="bold")
    for name in ("task", "metric", "seeds", f"{first} − {second}", "detectable", "separated"):
        table.add_column(name)
    for row in rows:
        said = {True: "yes", False: "no", None: row["note"] or "not ranked"}[row["separated"]]
        numbers = ["–" if row[key] is None else f"{row[key]:+.4f}" for key in ("difference", "detectable")]
        table.add_row(
            " · ".join(filter(None, (row["task"], row["track"]))), row["metric"], str(len(row["seeds"])), *numbers, said
        )
    console.print(table)


def status(suite: str | None, root: Path | None = None, overrides: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Per suite: how many records of each status, how many runs have a checkpoint, and how many are to do.

    A published record stands for a run that is still to be made here.
    """
    if suite is None:
        folder = root or default_root()
        names = sorted({path.parent.parent.name for path in folder.glob("*/*/record.json")})
        return [{"suite": name, "counts": _counts(Store(name, root).records())} for name in names]
    loaded = load(suite, overrides)
    store = Store(loaded.name, root)
    _, records = current(loaded, store)
    marks = store.published()
    own = [record for record in records if store.finished(record.run_id, marks)]
    counts = _counts(own)
    counts["under way"] = len(list(store.folder.glob("*/checkpoint")))
    counts["to do"] = len(expand(loaded)) + trials.count(loaded) - len(own) - counts["under way"]
    counts["published by others"] = len(records) - len(own)
    return [{"suite": loaded.name, "counts": counts}]


def _counts(records: list[Record]) -> dict[str, int]:
    return {name: sum(record.status == name for record in records) for name in STATUSES}


def verify(path: Path) -> list[dict[str, str]]:
    """Everything wrong with the records under a folder (or with one record).

    Checked: that each parses and has its keys, that its run id is the hash of its own spec and data, that runs of one
    task and seed with one learning schedule consumed the same batches, and that published records are unchanged.
    """
    problems: list[dict[str, str]] = []
    streams: dict[tuple[Any, ...], dict[str, list[str]]] = {}
    files = [path] if path.is_file() else sorted(path.rglob("record.json"))
    if not files:
        raise UserError("no record.json under this path", file=path)
    for file in files:
        try:
            record = Record.from_dict(json.loads(file.read_text(encoding="utf-8")))
            problem = _unsound(record, file)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"not a record: {error}"
        if problem:
            problems.append({"file": str(file), "problem": problem})
        elif record.status == "ok" and not record.external:
            spec, used = record.spec, record.budget.used
            key = (file.parent.parent, spec.task_label, spec.seed, record.data.fingerprint, used.steps)
            streams.setdefault(key, {}).setdefault(record.data.stream_hash, []).append(str(file))
    for key, hashes in streams.items():
        rare = sorted(hashes.items(), key=lambda item: len(item[1]))[:-1]
        for _, where in rare:
            problem = f"consumed other batches than the other runs of {key[1]}, seed {key[2]}"
            problems += [{"file": file, "problem": problem} for file in where]
    return problems + _unpublished(path)


def _unsound(record: Record, file: Path) -> str:
    if record.status not in STATUSES:
        return f"unknown status {record.status!r}"
    expected = record.spec.run_id
    if record.run_id != expected or file.parent.name != expected:
        return f"run id {record.run_id} is not the hash of its own spec and data ({expected})"
    if record.status == "ok" and not record.data.stream_hash and not record.external:
        return "no hash of the data it consumed"
    return ""


def _unpublished(path: Path) -> list[dict[str, str]]:
    problems = []
    for file in sorted(path.rglob("published.json")) if path.is_dir() else []:
        for run_id, known in json.loads(file.read_text(encoding="utf-8")).items():
            record = file.parent / run_id / "record.json"
            if not record.is_file():
                problems.append({"file": str(record), "problem": "published, but not there"})
            elif digest(record) != known:
                problems.append({"file": str(record), "problem": "not the record that was published"})
    return problems
