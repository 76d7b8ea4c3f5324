"""Time and memory against length, where somebody measured them: `zoobench bench ARCH... --out results/speed`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.bench import report
from harness.board import charts
from harness.board.looks import Frame, looks
from harness.board.tables import Section
from harness.site.parts import figure
from harness.site.views import TableView, section_view
from zoo import files

if TYPE_CHECKING:
    from harness.site.build import Site

MEASURED = Path("speed", "bench.json")
"""Where the measurements lie under the folder of results."""


def read(root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The measured rows, and what keeps them from being read."""
    file = root / MEASURED
    try:
        rows = [row for row in files.read_json(file) if row["architecture"]]
        report.sections(rows)
        return rows, []
    except FileNotFoundError:
        return [], []
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return [], [f"{file}: cannot be read: {error}"]


def context(site: Site, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the template of the page shows."""
    chosen = looks(row["architecture"] for row in rows)
    chart = charts.lengths(rows, Frame(chosen))
    return {
        "views": [_view(site, section) for section in report.sections(rows)],
        "looks": chosen,
        "charts": [figure("lengths", "Time and memory of a training step against length", chart)] if chart else [],
    }


def _view(site: Site, section: Section) -> TableView:
    view = section_view(section)
    return site.downloads(view, "speed", "") if section.columns else view
