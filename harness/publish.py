"""From records to what others read: boards and comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from harness import board as boards
from harness.errors import UserError
from harness.execute.runner import baselines, current
from harness.records.store import Store
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
