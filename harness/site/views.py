"""What templates show: the sections of a board as tables with links, hovers and downloads."""

import csv
import hashlib
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.board import latex
from harness.board.formats import csv_cell
from harness.board.model import Baseline, TaskBoard
from harness.board.tables import Cell, Column, Line, Section
from harness.records.files import to_json, write_page
from harness.records.record import Record
from harness.table.rows import MEASURED, Measured, Row
from harness.units import NONE, human


@dataclass(frozen=True)
class CellView:
    """One cell."""

    text: str
    order: Any = None
    """What it is sorted by, where that is not its text."""
    left: bool = False
    title: str = ""
    href: str = ""
    span: tuple[float, float] | None = None
    """A bar, in percent of the cell's width."""


@dataclass(frozen=True)
class RowView:
    """One row; `name` is the architecture it belongs to, empty for none."""

    cells: list[CellView]
    kind: str = "ranked"
    name: str = ""
    about: str = ""


@dataclass(frozen=True)
class TableView:
    """A table with what stands around it."""

    id: str
    section: Section
    rows: list[RowView] = field(default_factory=list)
    downloads: list[tuple[str, str]] = field(default_factory=list)
    charts: list[dict[str, Any]] = field(default_factory=list)
    folded: "TableView | None" = None

    @property
    def numeric(self) -> set[int]:
        """The columns that are sorted as numbers, where a cell without one comes last."""
        return {at for row in self.rows for at, cell in enumerate(row.cells) if cell.order is not None}


def slug(text: str) -> str:
    """A name for files and addresses: small letters, digits, `.`, `_` and `-`; a digest where that changed the text.

    Different texts get different names, also where files do not tell `A` from `a`.
    """
    plain = re.sub(r"[^a-z0-9._-]+", "-", text.lower().replace(" · ", "--")).strip("-.")[:60]
    if plain == text.replace(" · ", "--") and "--" not in text and plain not in ("", "index"):
        return plain
    return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:6]}".lstrip("-")


def plain_table(
    title: str, columns: Mapping[str, Callable[[Any], Any]], items: Sequence[Any], **more: Any
) -> TableView:
    """A table of plain values, the first of which are names; a value may be a CellView."""
    heads = [Column(name, lambda _: Cell(""), left=at == 0) for at, name in enumerate(columns)]
    rows = [[_cell(read(item), left=at == 0) for at, read in enumerate(columns.values())] for item in items]
    lines = [Line([Cell(cell.text, cell.order) for cell in row]) for row in rows]
    section = Section(None, title, columns=heads, lines=lines)
    return TableView(slug(title), section, [RowView(row) for row in rows], **more)


def _cell(value: Any, *, left: bool) -> CellView:
    if isinstance(value, CellView):
        return replace(value, left=left)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    text = NONE if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return CellView(text, value if number else None, left)


def amount(value: float | None, unit: str = "") -> CellView:
    """A number in few figures, sorted by all of them; a dash for none or nothing."""
    return CellView(human(value, unit), value) if value else CellView(NONE)


RunPage = Callable[[TaskBoard, str], str]
"""The address of the page about a row's runs."""
Runs = Callable[[TaskBoard, str], list[Record]]
"""The final runs of a row, by seed."""


def section_view(
    section: Section, run_page: RunPage = lambda task, name: "", runs: Runs = lambda task, name: []
) -> TableView:
    """A section of a board; rows of a task lead to their runs and say what each seed gave."""
    subject, rows = section.subject, [_row(section, line) for line in section.lines]
    if isinstance(subject, TaskBoard):
        entries = zip(rows, subject.entries(), strict=False)  # of a long table only the first lines are here
        rows = [_task_row(row, subject, section, entry, run_page, runs) for row, entry in entries]
    folded = section_view(section.folded, run_page, runs) if section.folded else None
    name = slug(section.title) + "-" * (not isinstance(subject, TaskBoard))  # a task may be called as a summary is
    return TableView(name, section, rows, folded=folded)


def _row(section: Section, line: Line) -> RowView:
    pairs = list(zip(line.cells, section.columns, strict=True))
    cells = [CellView(cell.text, _order(cell.value), column.left) for cell, column in pairs]
    return RowView(cells, line.kind, next((cell.text for cell in cells if cell.left), ""), line.about)


def _order(value: Any) -> Any:
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None


def _task_row(
    row: RowView, task: TaskBoard, section: Section, entry: Row | Baseline, run_page: RunPage, runs: Runs
) -> RowView:
    if isinstance(entry, Baseline):
        return replace(row, name="")
    cells, records = [*row.cells], runs(task, entry.architecture)
    at = {column.title: i for i, column in reversed([*enumerate(section.columns)])}
    seeds = ", ".join(f"seed {seed}: {value:.4f}" for seed, value in entry.by_seed.items())
    cells[2] = replace(cells[2], title=seeds, href=run_page(task, entry.architecture) if records else "")
    if entry.ranks:
        first, last, count = *entry.ranks, len(task.ranked)
        cells[0] = replace(cells[0], span=(100 * (first - 1) / count, 100 * last / count))
    for shown in MEASURED.values():
        if shown.title in at:
            cells[at[shown.title]] = replace(cells[at[shown.title]], title=_by_seed(records, shown))
    return replace(row, cells=cells, name=entry.architecture)


def _by_seed(records: Sequence[Record], shown: Measured) -> str:
    """Like `seed 0: 34k tok/s, seed 1: 33k tok/s`; empty where all are the same or unknown."""
    known = [(record.spec.seed, shown.read(record)) for record in records if record.score is not None]
    values = {value for _, value in known}
    if len(values) < 2 or None in values:
        return ""
    return ", ".join(f"seed {seed}: {shown.text(value)}" for seed, value in known)


def write_downloads(view: TableView, site: Path, folder: str, up: str) -> TableView:
    """Write a table as CSV, JSON and LaTeX into a folder of the site; the view with links from a page to them."""
    for kind, text in _formats(view.section).items():
        write_page(site, f"{folder}/{view.id}.{kind}", text)
    kinds = {"CSV": "csv", "JSON": "json", "LaTeX": "tex"}
    return replace(view, downloads=[(name, f"{up}{folder}/{view.id}.{kind}") for name, kind in kinds.items()])


def _formats(section: Section) -> dict[str, str]:
    """A table by file ending: numbers in full as CSV and JSON, as they are shown in LaTeX."""
    heads = [column.title for column in section.columns]
    rows = [[cell.text if cell.value is None else cell.value for cell in line.cells] for line in section.lines]
    stream = io.StringIO()
    lines: list[list[Any]] = [heads, *rows]
    csv.writer(stream, lineterminator="\n").writerows([[csv_cell(value) for value in line] for line in lines])
    data = to_json([dict(zip(heads, row, strict=True)) for row in rows])
    return {"csv": stream.getvalue(), "json": data, "tex": latex.table(section)}
