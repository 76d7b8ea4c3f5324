"""Where boxes and arrows go: layers from top to bottom, by fast-sugiyama (MIT, a wheel without dependencies)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from zoo.types import BadInput

Point: TypeAlias = tuple[float, float]

GAP, BESIDE = 16.0, 12.0
"""Points between two boxes of a layer, and around an arrow that passes between them."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Centres of boxes, the points that arrows go through, and the size of it all."""

    centres: list[Point]
    arrows: dict[tuple[int, int], list[Point]]
    width: float
    height: float


def lay_out(widths: Sequence[float], edges: Sequence[tuple[int, int]], layer_height: float) -> Layout:
    """Place boxes of these widths, one or more of which are in each layer.

    Raises:
        BadInput: the layout engine is not installed.
    """
    try:
        from fast_sugiyama import from_edges
    except ImportError:
        raise BadInput("drawing needs the package fast-sugiyama, which needs Python 3.11 or newer") from None
    ((placed, _, _, chains),) = from_edges(
        edges, vertex_spacing=1, minimum_length=1, dummy_vertices=True, dummy_size=0.2, ranking_type="down"
    )
    at = {int(i): (float(x), -float(y)) for i, (x, y) in placed}
    rows: dict[float, list[int]] = {}
    for i in sorted(at, key=lambda i: at[i]):
        rows.setdefault(at[i][1], []).append(i)
    half = {i: widths[i] / 2 + GAP / 2 if i < len(widths) else BESIDE / 2 for i in at}
    x = _spread(at, rows, half)
    y = {key: (k + 0.5) * layer_height for k, key in enumerate(sorted(rows))}
    left = min(x[i] - half[i] for i in at)
    points = {i: (x[i] - left, y[at[i][1]]) for i in at}
    width = max(points[i][0] + half[i] for i in at)
    arrows = {edge: [points[i] for i in chain] for edge, chain in _chains(len(widths), chains).items()}
    return Layout([points[i] for i in range(len(widths))], arrows, width, len(rows) * layer_height)


def _spread(at: dict[int, Point], rows: dict[float, list[int]], half: dict[int, float]) -> dict[int, float]:
    """The engine's places along layers, as far apart as the widths need."""
    neighbours = [pair for row in rows.values() for pair in pairwise(row)]
    needs = [(half[a] + half[b]) / (at[b][0] - at[a][0]) for a, b in neighbours]
    scale = max(needs, default=1.0)
    return {i: x * scale for i, (x, _) in at.items()}


def _chains(boxes: int, chains: Sequence[tuple[int, int]]) -> dict[tuple[int, int], list[int]]:
    """The way of each arrow from box to box, through the places that the engine keeps free for it."""
    following = {a: b for a, b in chains if a >= boxes}
    found: dict[tuple[int, int], list[int]] = {}
    for a, b in chains:
        if a < boxes:
            way = [a, b]
            while way[-1] >= boxes:
                way.append(following[way[-1]])
            found[a, way[-1]] = way
    return found
