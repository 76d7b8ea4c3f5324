"""The front page: four answers, and the matrix of everything published."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from harness.board.tables import Note, ranks
from harness.board.verdicts import sentences
from harness.gates.registry import gates
from harness.site.front import REFERENCE, Cell, Column, Line
from harness.site.suites import Suite
from harness.site.views import CellView, plain_table, slug
from harness.stats.overall import FEWEST
from harness.units import NONE
from zoo import architectures
from zoo.registry import Entry

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
    groups = [(suite, f"suites/{slug(suite)}.html", len([*own])) for suite, own in itertools.groupby(c.suite for c in columns)]
    return {
        "answers": answers(site),
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
        "reading": reading(),
        "suites": [_suite(suite) for suite in site.suites],
    }


def answers(site: Site) -> list[tuple[str, str]]:
    """Who leads, by how much, at what cost, and why to believe it, a sentence each."""
    placed = [line for line in site.matrix.lines if line.overall]
    finals = [record for suite in site.suites for record in suite.finals]
    trust = (
        f"{len(finals)} runs of {len(site.suites)} suites; a row is ranked only if it passed {len(gates())} gates, consumed "
        "the same batches and has the size it should have. Every number leads to its runs and to the command that makes them again."
    )
    if not placed:
        none = f"Nobody yet: no two architectures are ranked on {FEWEST} tasks."
        return [("Who leads?", none), ("May I believe it?", trust)]
    first = placed[0]
    may = [line.name for line in placed[1:] if line.overall and line.overall.rank_low == 1]
    overall = first.overall
    assert overall is not None
    lead = f"{first.name}: rank {ranks((overall.rank_low, overall.rank_high))} of {len(placed)} architectures that are ranked on {FEWEST} tasks or more."
    lead += f" {_listed(may)} may be first as well." if may else " Nobody else may be first."
    margin = f"It beats another architecture on a task with a chance of {overall.wins:.0%} ({overall.low:.0%}–{overall.high:.0%})"
    second = placed[1].overall if len(placed) > 1 else None
    margin += f"; {placed[1].name} with {second.wins:.0%} ({second.low:.0%}–{second.high:.0%})." if second else "."
    costs = [f"{first.compute:.2g}× the training FLOPs" if first.compute else "", f"{first.speed:.2g}× the speed" if first.speed else ""]
    cost = " and ".join(filter(None, costs))
    return [
        ("Who leads?", lead),
        ("By how much?", margin),
        ("At what cost?", f"{cost} of {REFERENCE} at the same size and tokens." if cost else "Not known."),
        ("May I believe it?", trust),
    ]


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def reading() -> list[Note]:
    """How the matrix is to be read."""
    return [
        Note(f"of the architectures that are ranked on {FEWEST} tasks or more, by Bradley and Terry's model of who beats whom: a board is a tournament, and what an architecture was not tried on costs it nothing. The interval holds 95% of bootstrap draws over tasks.", "Rank"),
        Note("are the chance to beat another ranked architecture on a task, averaged over the others.", "Wins"),
        Note(f"are ratios to {REFERENCE}, geometric means over the boards that have both; speeds of different machines are not compared.", "FLOPs and speed"),
        Note("are (score − zero) / (one − zero), in hundredths: one is the mean of the board's best row, zero the best baseline that it beats with every seed and the whole of its interval; less than zero counts as zero. A board where nobody beats a baseline has no colours.", "Cells"),
    ]  # fmt: skip


def entry(name: str) -> Entry | None:
    """What the registry knows of an architecture; None for a plug-in's that is not imported, or published weights."""
    try:
        return architectures.get(name) if name in architectures.names() else None
    except KeyError:
        return None


def traits(name: str) -> list[str]:
    """What an architecture can do, for filters."""
    from harness.commands.catalog import find

    if entry(name) is None:
        return []
    known = find(name)
    words = {
        "causal": known["causal"] == "strict",
        "resumable": known["resumable"],
        "any length": known["length"] == "any",
        "stochastic": known["stochastic"],
    }
    return [word for word, holds in words.items() if holds]


def year(paper: str) -> int | None:
    """The year of a paper: the first that its reference names."""
    found = re.search(r"\b(19|20)\d\d\b", paper)
    return int(found.group()) if found else None


def _column(column: Column, before: Column | None) -> dict[str, Any]:
    scale = column.scale
    ends = f"; 0 is {scale.zero_name} ({scale.zero:.3f}), 100 is {scale.one_name} ({scale.one:.3f})" if scale else "; nobody surely beats a baseline"
    return {
        "suite": column.suite,
        "title": column.task.title,
        "role": column.role,
        "track": column.task.track,
        "about": f"{column.title}: {column.task.direction}{ends}",
        "first": before is None or before.suite != column.suite,
    }


def _line(site: Site, line: Line) -> dict[str, Any]:
    known, place = entry(line.architecture), line.overall
    family, when = (known.family, year(known.paper)) if known else ("", None)
    return {
        "name": line.name,
        "family": family,
        "traits": ", ".join(traits(line.architecture)),
        "presets": " ".join(key for key, (_, holds) in PRESETS.items() if holds(family, when)),
        "href": site.pages.get(line.architecture, ""),
        "rank": ranks((place.rank_low, place.rank_high)) if place else NONE,
        "order": place.rank if place else 9999,
        "rank_about": f"rank {place.rank}, 95% interval {place.rank_low}–{place.rank_high}; ranked on {place.tasks} tasks" if place else f"ranked on fewer than {FEWEST} tasks",
        "wins": f"{100 * place.wins:.0f}" if place else NONE,
        "wins_order": place.wins if place else -1,
        "wins_about": f"{place.wins:.0%}, 95% interval {place.low:.0%}–{place.high:.0%}" if place else "",
        "compute": f"{line.compute:.2f}" if line.compute else NONE,
        "compute_order": line.compute or 9999,
        "speed": f"{line.speed:.2f}" if line.speed else NONE,
        "speed_order": line.speed or -1,
        "cells": [_cell(cell) for cell in line.cells],
    }  # fmt: skip


def _cell(cell: Cell) -> dict[str, Any]:
    text = MARKS.get(cell.kind, "x")
    if cell.kind == "ranked":
        text = NONE if cell.value is None else f"{100 * cell.value:.0f}"
    order = -1 if cell.value is None else round(cell.value, 6)
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
    finals = suite.finals
    seeds = len({record.spec.seed for record in finals})
    facts = f"{len(suite.board.tasks)} boards, {len(finals)} runs, {seeds} seed{'s' * (seeds > 1)}"
    about = suite.board.about.strip()
    said = sentences(suite.board)
    return {"name": suite.name, "href": f"suites/{slug(suite.name)}.html", "about": about, "facts": facts, "verdicts": said[:4]}
