"""The claims that were measured: one table of all, and a page for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.board.looks import Frame
from harness.claims.charts import heat_map
from harness.claims.report import details, judged, overview
from harness.claims.verdict import Judged
from harness.errors import UserError
from harness.site.parts import figure
from harness.site.views import section_view

if TYPE_CHECKING:
    from harness.site.build import Site


def read(root: Path) -> tuple[list[Judged], list[str]]:
    """All claims, or none where nothing was measured; and what cannot be read."""
    try:
        found = judged(root=root)
    except UserError as error:
        return [], [str(error)]
    return (found if any(one.verdict != "not measured" for one in found) else []), []


def pages(site: Site) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The page of all claims and that of each: address, template and what it shows."""
    if not site.claims:
        return
    table = section_view(overview(site.claims))
    rows = [replace(row, cells=[replace(row.cells[0], href=f"{row.name}.html"), *row.cells[1:]]) for row in table.rows]
    view = replace(table, rows=rows)
    yield "claims/index.html", "claims.html.j2", {"title": "The claims, settled", "claim": None, "view": view}
    for one in site.claims:
        drawn = heat_map(one.measured, Frame({}))
        charts = [figure(f"{one.name}:scores", "Means over seeds; darker is better", drawn)] if drawn else []
        view = replace(section_view(details(one, "small")), charts=charts)
        yield f"claims/{one.name}.html", "claims.html.j2", {"title": one.name, "claim": one, "view": view}
