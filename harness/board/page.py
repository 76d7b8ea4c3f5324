"""The board as one self-contained HTML page, and all its forms written to a folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from harness.board import gather, grids, overall, plots, tables, tracks
from harness.board.across import sections
from harness.board.gather import Record, dig
from harness.board.model import Board, Line, Row, TaskBoard


def write(board: Board, records: Iterable[Record], folder: str | Path) -> None:
    """Write board.md, board.csv, board.json and index.html, each atomically."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "board.md": tables.markdown(board) + grids.markdown(overall.grids(board)),
        "board.csv": tables.as_csv(board),
        "board.json": tables.as_json(board),
        "index.html": page(board, records),
    }
    for name, text in files.items():
        _replace(folder / name, text)


def _replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def page(board: Board, records: Iterable[Record]) -> str:
    """The whole page as text."""
    ordered = gather.canonical(records)
    finals = [r for r in ordered if dig(r, "spec.kind") != "trial"]
    names = sorted({row.architecture for task in board.tasks for row in task.rows if row.ranked})
    style = plots.styles(names)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tasks = [
        _task(task, [r for r in ordered if gather.column_of(r) == (task.task, task.track)], style)
        for task in board.tasks
    ]
    more = [
        sections.section(tracks.grid(c), {"The same as a picture": plots.places(c, style)}) for c in board.contrasts
    ]
    more += [section for found in board.across for section in sections.sections(found, style)]
    return environment.get_template("page.html.j2").render(
        board=board, tasks=tasks, sections=more, provenance=provenance(finals)
    )


def _task(board: TaskBoard, records: Sequence[Record], style: plots.Style) -> dict[str, Any]:
    columns = tables.columns(board)
    trials = [r for r in records if dig(r, "spec.kind") == "trial"]
    finals = [r for r in records if dig(r, "spec.kind") != "trial"]
    figures = {
        "Mean and 95% interval; ticks are seeds, dashed lines baselines": plots.dots(board, style),
        "Learning curves, mean over seeds": plots.curves(board, finals, style),
        "Score against cost, tuning included" if trials else "Score against cost": plots.cost(board, style),
        "Expected best of k trials on the tuning split, drawn in any order": plots.best_of(board, trials, style),
    }
    return {
        "board": board,
        "direction": tables.direction(board),
        "columns": columns,
        "entries": [_entry(entry, board, columns) for entry in board.entries()],
        "reasons": tables.reasons(board),
        "figures": [(caption, Markup(svg)) for caption, svg in figures.items() if svg],
    }


def _entry(entry: Row | Line, board: TaskBoard, columns: Sequence[tables.Column]) -> dict[str, Any]:
    if isinstance(entry, Row):
        kind = "ranked" if entry.ranked else "unranked"
        return {"kind": kind, "about": entry.reason, "cells": [(c.text(entry), c.value(entry)) for c in columns]}
    told: dict[str, tuple[str, Any]] = {
        "architecture": (entry.name, entry.name),
        board.metric or "score": (f"{entry.value:.3f}", entry.value),
    }
    return {"kind": "baseline", "about": entry.about, "cells": [told.get(c.title, ("", None)) for c in columns]}


def provenance(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Where the numbers come from; every distinct value of every field is listed."""
    paths = {
        "zoobench": "provenance.zoobench",
        "commit": "provenance.commit",
        "hardware": "provenance.hardware",
        "threads": "provenance.threads",
        "precision": "provenance.precision",
        "packages": "provenance.packages",
    }
    ok = sum(r.get("status") == "ok" for r in records)
    found = [("runs", f"{len(records)}, of which {ok} ok")]
    for name, path in paths.items():
        values = sorted({_plain(v) for r in records if (v := dig(r, path)) not in (None, {}, [])})
        if values:
            found.append((name, "; ".join(values)))
    for task in sorted({gather.task_of(r) for r in records}):
        prints = {str(v) for r in records if gather.task_of(r) == task and (v := dig(r, "data.fingerprint"))}
        if prints:
            found.append((f"data of {task}", ", ".join(sorted(prints))))
    return found


def _plain(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in sorted(value.items())) if isinstance(value, dict) else str(value)
