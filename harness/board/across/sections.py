"""What is said over several tasks, as sections of the page: tables, figures and notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from harness.board.across import plots, show
from harness.board.across.model import Across
from harness.board.grids import Grid
from harness.board.plots import Style

ASIDE = "; dashed the reference; lines that coincide are drawn side by side"


def sections(found: Across, style: Style) -> list[dict[str, Any]]:
    """One section for the aggregates of a track and one for its race, each where there is something to say."""
    tables, made = show.grids(found), []
    if found.rows:
        figures = {
            f"Performance profile of normalised scores: higher is better{ASIDE}": plots.profile(found, style),
            "Mean ranks, best on the left; a bar joins what is not separated": plots.critical_difference(found),
        }
        more = [show.matrix(found)] if len(found.rows) > 1 else []
        made.append(section(tables[0], figures, more))
    if found.race is not None:
        figures = {
            f"Time to target: higher and further left is better{ASIDE}": plots.race(found.race, found.track, style)
        }
        made.append(section(tables[-1], figures))
    elif not found.rows:
        made.append(section(tables[0], {}))
    return made


def section(grid: Grid, figures: dict[str, str], more: Sequence[Grid] = ()) -> dict[str, Any]:
    """A table with the figures that could be drawn, by caption, and tables that stay folded."""
    drawn = [(caption, Markup(svg)) for caption, svg in figures.items() if svg]
    return {"grid": grid, "figures": drawn, "more": more}
