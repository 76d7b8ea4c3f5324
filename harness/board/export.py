"""Charts as files: vector graphics, pictures, pages and specifications."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import altair as alt

from harness.board import charts
from harness.board.looks import theme
from harness.board.model import Board, TimeToTarget
from harness.board.sections import sections
from harness.board.tables import Section, lines, name_column
from harness.errors import UserError
from harness.records.record import Record
from harness.units import NONE
from zoo.registry import nearest

FORMATS = ("pdf", "svg", "png", "html", "json")


class Drawing(NamedTuple):
    """A chart of a board, with the task and the track it is of; empty where it is of all."""

    name: str
    task: str
    track: str
    caption: str
    chart: alt.LayerChart


def drawings(board: Board, records: Iterable[Record], width: int) -> list[Drawing]:
    """Every chart of a board, with legends."""
    known, found = list(records), []
    for section in sections(board):
        task, track = _place(section.subject, board)
        for name, caption, chart in charts.of(section, board, known, width, legend=True):
            found.append(Drawing(name, task, track, caption, chart))
    return found


def _place(subject: Any, board: Board) -> tuple[str, str]:
    if isinstance(subject, TimeToTarget):
        return "", next(found.track for found in board.across if found.race is subject)
    return getattr(subject, "task", ""), getattr(subject, "track", "")


def listing(drawn: Sequence[Drawing]) -> Section:
    """What can be drawn, as a table."""
    columns = [
        name_column(lambda item: item.name, "name"),
        name_column(lambda item: item.task or NONE, "--task"),
        name_column(lambda item: item.track or NONE, "--track"),
        name_column(lambda item: item.caption, "shows"),
    ]
    return Section(drawn, "charts", "", columns, lines(columns, drawn))


def choose(drawn: Sequence[Drawing], name: str, task: str | None, track: str | None) -> Drawing:
    """The one chart of this name, task and track; a task or track that is not given may be any.

    Raises:
        UserError: there is none, or there are several.
    """
    if name not in (names := list(dict.fromkeys(item.name for item in drawn))):
        known = ", ".join(names) or "none"
        raise UserError(f"this board has no chart {name!r}{nearest(name, names)}; it has: {known}")
    found = [item for item in drawn if item.name == name and task in (None, item.task) and track in (None, item.track)]
    if len(found) == 1:
        return found[0]
    among = found or [item for item in drawn if item.name == name]
    places = "; ".join(f"--task {item.task!r}" + f" --track {item.track!r}" * bool(item.track) for item in among)
    raise UserError(f"{'several are' if found else 'none is'} called {name!r} there; choose one of: {places}")


def png(chart: alt.LayerChart) -> bytes:
    """A chart as a picture of 150 pixels an inch on white."""
    return as_bytes(chart, "png")


def as_bytes(chart: alt.LayerChart, format: str) -> bytes:
    """A chart in one of `FORMATS`, in small dark type.

    A PDF embeds the fonts of its text; an SVG names them. A page holds all it needs.
    """
    import vl_convert

    spec, config = chart.to_dict(), theme(paper=True)
    if format == "pdf":
        return bytes(vl_convert.vegalite_to_pdf(spec, config=config))
    if format == "png":
        return bytes(vl_convert.vegalite_to_png(spec | {"background": "white"}, config=config, ppi=150, scale=1))
    if format == "svg":
        return str(vl_convert.vegalite_to_svg(spec, config=config)).encode()
    if format == "html":
        return str(vl_convert.vegalite_to_html(spec, config=config, bundle=True)).encode()
    from harness.records.files import to_json

    return to_json(spec | {"config": config}).encode()
