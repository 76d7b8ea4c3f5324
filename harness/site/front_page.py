"""The front page: four answers, and the matrix of everything published."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.board.tables import ranks
from harness.board.verdicts import sentences
from harness.records.checks import GATES
from harness.site.front import REFERENCE, Cell, Column, Line
from harness.site.suites import Suite
from harness.site.views import CellView, plain_table, slug
from harness.stats.overall import FEWEST
from harness.units import NONE

if TYPE_CHECKING:
    from harness.site.build import Site

LINEAR = {
    "efficient attention", "fast weights and matrix states", "state spaces and long convolutions", "RWKV", "recurrent",
    "mixers and transforms",
}  # fmt: skip
RECURRENT = {"fast weights and matrix states", "state spaces and long convolutions", "RWKV", "recurrent"}
PRESETS = {
    "all": ("All", lambda family, year: True),
    "transformers": ("Transformers", lambda family, year: family == "transformers"),
    "linear": ("Linear time", lambda family, year: family in LINEAR),
    "recurrent": ("Recurrent", lambda family, year: family in RECURRENT),
    "hybrids": ("Hybrids", lambda family, year: family == "hybrids"),
    "to-2020": ("Until 2020", lambda family, year: year is not None and year <= 2020),
    "to-2023": ("2021–2023", lambda family, year: year is not None and 2020 < year <= 2023),
    "since-2024": ("Since 2024", lambda family, year: year is not None and year > 2023),
}
"""Groups of architectures by family and by the year of their paper."""
MARKS = {"absent": "·", "unsupported": "u", "unranked": "?"}
"""What a cell without a score shows; any other status is a failure."""


def context(site: Site) -> dict[str, Any]:
    """What the template of the front page shows."""
    columns, lines = site.matrix.columns, [_line(site, line) for line in site.matrix.lines]
    groups = [
        (suite, f"suites/{slug(suite)}.html", len([*own])) for suite, own in itertools.groupby(c.suite for c in columns)
    ]
    return {
        "leaders": leaders(site.matrix.lines),
        "placed": [line for line in site.matrix.lines if line.overall],
        "runs": sum(len(suite.finals) for suite in site.suites),
        "gates": len(GATES),
        "fewest": min(FEWEST, len({column.task.task for column in columns})),
        "leading": site.matrix.leading,
        "problems": site.problems,
        "presets": [{"key": key, "title": title} for key, (title, _) in PRESETS.items()],
        "families": sorted({line["family"] for line in lines} - {""}),
        "traits": sorted({trait for line in lines for trait in line["traits"].split(", ")} - {""}),
        "roles": sorted({column.role for column in columns}),
        "tracks": sorted({column.task.track for column in columns} - {""}),
        "groups": groups,
        "columns": [_column(column, before) for column, before in zip(columns, [None, *columns], strict=False)],
        "lines": lines,
        "reference": REFERENCE,
        "downloads": _downloads(site),
        "suites": [_suite(suite) for suite in site.suites],
    }


def leaders(lines: Sequence[Line]) -> list[Line]:
    """The first by overall rank, and everybody else who may be first."""
    placed = [line for line in lines if line.overall]
    return placed[:1] + [line for line in placed[1:] if line.overall and line.overall.rank_low == 1]


def traits(known: dict[str, Any]) -> list[str]:
    """What an architecture can do, for filters, from its row of the catalog."""
    words = {
        "causal": known["causal"] == "strict",
        "resumable": known["resumable"],
        "any length": known["length"] == "any",
        "stochastic": known["stochastic"],
    }
    return [word for word, holds in words.items() if holds]


def _column(column: Column, before: Column | None) -> dict[str, Any]:
    scale = column.scale
    ends = (
        f"; 0 is {scale.zero_name} ({scale.zero:.3f}), 100 is {scale.one_name} ({scale.one:.3f})"
        if scale
        else "; nobody surely beats a baseline"
    )
    return {
        "suite": column.suite,
        "title": column.task.title,
        "role": column.role,
        "track": column.task.track,
        "about": f"{column.title}: {column.task.direction}{ends}",
        "first": before is None or before.suite != column.suite,
    }


def _line(site: Site, line: Line) -> dict[str, Any]:
    known, place = site.known.get(line.architecture), line.overall  # none of published weights, nor of a plug-in's
    family, when = (known["family"], known["year"]) if known else ("", None)
    return {
        "name": line.name,
        "family": family,
        "traits": ", ".join(traits(known) if known else ()),
        "presets": " ".join(key for key, (_, holds) in PRESETS.items() if holds(family, when)),
        "href": site.pages.get(line.architecture, ""),
        "place": place,
        "rank": ranks((place.rank_low, place.rank_high)) if place else NONE,
        "compute": line.compute,
        "speed": line.speed,
        "cells": [_cell(cell) for cell in line.cells],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    text = MARKS.get(cell.kind, "x")
    if cell.kind == "ranked":
        text = NONE if cell.value is None else f"{min(99, 100 * cell.value):.0f}"
    order = "" if cell.value is None else round(cell.value, 6)
    level = None if cell.value is None else round(min(cell.value, 1.0), 3)
    return {"text": text, "kind": cell.kind, "about": cell.about, "order": order, "level": level}


def _downloads(site: Site) -> list[tuple[str, str]]:
    """The matrix with full precision."""
    numbers = {column.title: at for at, column in enumerate(site.matrix.columns)}
    place = ("rank", "rank_low", "rank_high", "wins", "tasks")
    columns: dict[str, Any] = {"architecture": lambda line: line.name}
    columns |= {name: lambda line, name=name: getattr(line.overall, name) if line.overall else None for name in place}
    columns |= {"flops": lambda line: line.compute, "speed": lambda line: line.speed}
    columns |= {title: lambda line, at=at: _exact(line.cells[at]) for title, at in numbers.items()}
    return site.downloads(plain_table("matrix", columns, site.matrix.lines), "front", "").downloads


def _exact(cell: Cell) -> CellView:
    return CellView(cell.kind) if cell.value is None else CellView(f"{cell.value:.3f}", cell.value)


def _suite(suite: Suite) -> dict[str, Any]:
    seeds = len({record.spec.seed for record in suite.finals})
    return {
        "name": suite.name,
        "href": f"suites/{slug(suite.name)}.html",
        "about": suite.board.about.strip(),
        "facts": f"{len(suite.board.tasks)} boards, {len(suite.finals)} runs, {seeds} seed{'s' * (seeds > 1)}",
        "verdicts": sentences(suite.board)[:4],
    }
