"""A page for each architecture: what it computes, where it comes from, how it was proven, where it wins and loses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from harness.board.tables import ranks
from harness.catalog import entries as catalog
from harness.site import figures
from harness.site.front import Cell, Line
from harness.site.mathml import to_mathml
from harness.site.views import CellView, TableView, amount, plain_table, slug
from zoo import cache
from zoo.equations import equations

if TYPE_CHECKING:
    from harness.site.build import Site


def pages(site: Site) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The list of architectures and the page of each: address, template and what it shows."""
    known = site.known
    yield "architectures/index.html", "architectures.html.j2", {"view": _list(site, known)}
    with cache.kept("figures.json") as drawn:
        for name, row in known.items():
            lines = [line for line in site.matrix.lines if line.architecture == name]
            context = _context(site, name, row, lines)
            yield site.pages[name], "architecture.html.j2", {**context, "drawn": figures.of(name, drawn)}


def _list(site: Site, known: dict[str, dict[str, Any]]) -> TableView:
    places = {line.name: line.overall for line in site.matrix.lines if line.overall}

    def rank(row: dict[str, Any]) -> CellView:
        place = places.get(row["name"])
        return CellView(ranks((place.rank_low, place.rank_high)), place.rank) if place else CellView("–")

    columns = {
        "architecture": lambda row: CellView(row["name"], href=f"{slug(row['name'])}.html"),
        "family": lambda row: row["family"],
        "overall rank": rank,
        "largest error of its proofs": lambda row: row["error"] and CellView(f"{row['error']:.0e}", row["error"]),
        "about": lambda row: row["about"],
    }
    return plain_table("architectures", columns, list(known.values()))


def _context(site: Site, name: str, known: dict[str, Any], lines: list[Line]) -> dict[str, Any]:
    boards = _boards(lines)
    proofs = plain_table(
        "proofs",
        {
            "compared with": lambda proof: proof["oracle"],
            "outputs": lambda proof: proof["output"] and CellView(f"{proof['output']:.0e}", proof["output"]),
            "gradients": lambda proof: proof["gradient"] and CellView(f"{proof['gradient']:.0e}", proof["gradient"]),
        },
        known["oracles"],
    )
    rivals = [line.name for line in site.matrix.lines if line.overall and line.name != name][:6]
    lengths = {"any": "any", "max": "up to a maximum it is built for", "fixed": "the one it is built for"}
    facts = [
        ("paper", known["paper"]),
        ("official source", known["source"]),
        ("plays", ", ".join(known["roles"])),
        ("causal", str(known["causal"])),
        ("resumable", "yes: a state is carried from call to call" if known["resumable"] else "no"),
        ("length", lengths.get(known["length"], "")),
        ("stochastic", "yes: hashes or random features" if known["stochastic"] else "no"),
        ("options", catalog.format_options(known["options"]) or "none"),
    ]
    return {
        "known": known,
        "equations": [Markup(to_mathml(line)) for line in equations(name)],
        "facts": [(title, value) for title, value in facts if value],
        "proofs": proofs if known["oracles"] else None,
        "standing": _standing(site, lines),
        "boards": boards,
        "rivals": [(rival, f"../compare.html#a={name}&b={rival}") for rival in rivals] if lines else [],
    }


def _standing(site: Site, lines: list[Line]) -> str:
    if not lines or lines[0].overall is None:
        return "It is ranked on too few tasks for an overall rank."
    place = lines[0].overall
    interval = f"{place.rank} (95% interval {ranks((place.rank_low, place.rank_high))})"
    suite = f" on the suite {site.matrix.leading}" if site.matrix.leading else ""
    return f"Overall rank{suite} {interval}; it beats another architecture on a task with a chance of {place.wins:.0%}."


def _boards(lines: list[Line]) -> TableView:
    """Every board it is on, the best places first."""
    own = [(line, cell) for line in lines for cell in line.cells if cell.row is not None]
    own.sort(key=lambda pair: 1.0 if pair[1].value is None else -pair[1].value)
    columns = {
        "board": lambda pair: CellView(pair[1].column.title, href=f"../{pair[1].column.href}"),
        "row": lambda pair: pair[0].name,
        "rank": lambda pair: _rank(pair[1]),
        "normalised": lambda pair: pair[1].value,
        "score": lambda pair: pair[1].row.mean,
        "metric": lambda pair: pair[1].column.task.metric,
        "compute": lambda pair: amount(pair[1].row.flops, "FLOP"),
        "state": lambda pair: amount(pair[1].row.state_bytes, "B"),
        "speed": lambda pair: amount(pair[1].row.tokens_per_s, "tok/s"),
        "note": lambda pair: pair[1].row.reason or None,
    }  # fmt: skip
    if not any(cell.row.reason for _, cell in own if cell.row):
        del columns["note"]
    return plain_table("boards", columns, own)


def _rank(cell: Cell) -> CellView:
    if cell.row is None or cell.row.ranks is None:
        return CellView("–")
    return CellView(f"{ranks(cell.row.ranks)} of {len(cell.column.task.ranked)}", cell.row.ranks[0])
