"""A figure as SVG: graphs side by side, boxes coloured by what they are for, text as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from zoo.figures.graph import Depth, Graph, Kind, Node
from zoo.figures.layout import Layout, Point, lay_out

COLOURS: dict[Kind, tuple[str, str]] = {
    "norm": ("#f6e7a1", "#5e5312"), "mixer": ("#f9cfa3", "#6b4315"), "channel": ("#bfe0f4", "#1d4a66"),
    "embedding": ("#f5ccd8", "#642f42"), "sum": ("#ffffff", "#24292f"), "other": ("#eceff2", "#343b43"),
    "constant": ("#f6f8fa", "#1c2128"), "end": ("none", "none"),
}  # fmt: skip
"""Fills in light and in dark, near those of the figure of Vaswani et al. 2017."""
KINDS: dict[Kind, str] = {
    "embedding": "embedding, head", "norm": "norm", "mixer": "mixer", "channel": "channel mixer",
    "constant": "constant",
}  # fmt: skip
INK, SOFT = ("#1b1f23", "#e6e9ec"), ("#4c545d", "#b6bec7")
LINE, MARK = ("#6e7781", "#8b949e"), ("#c8102e", "#ff7b86")
CHAR, SMALL = 0.59, 0.8
"""The width of a letter, and the size of small text, relative to the size of the font."""
FONT, PAD, MARGIN, BETWEEN = 13.0, 10.0, 12.0, 44.0


def style() -> str:
    """Colours by class, for readers who prefer a dark page too."""

    def rules(dark: int) -> str:
        fills = "".join(f".zf-{kind} rect{{fill:{pair[dark]}}}" for kind, pair in COLOURS.items())
        return (
            f".zf text{{fill:{INK[dark]}}}.zf .zf-soft{{fill:{SOFT[dark]}}}.zf .zf-mark{{fill:{MARK[dark]}}}"
            f".zf path,.zf rect{{stroke:{LINE[dark]}}}.zf .zf-tip{{fill:{LINE[dark]};stroke:none}}"
            f".zf {fills.replace('}.', '}.zf .')}.zf .zf-differs rect{{stroke:{MARK[dark]};stroke-width:2.5}}"
            f".zf-end rect{{stroke:none}}"
        )

    return f"<style>{rules(0)}@media (prefers-color-scheme:dark){{{rules(1)}}}</style>"


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph, laid out."""

    graph: Graph
    differs: frozenset[int]
    layout: Layout
    depth: Depth

    @property
    def width(self) -> float:
        below = max((len(note) for note in self.graph.notes), default=0) * FONT * SMALL * CHAR
        return max(self.layout.width + 2 * PAD, below, len(self.graph.title) * (FONT + 2) * 0.62)


def draw(graphs: Sequence[Graph], differs: Sequence[set[int]], depth: Depth) -> str:
    """The figure of graphs, in which the nodes at the places `differs` are marked."""
    line = 58.0 if depth == "operations" else 48.0
    panels = []
    for graph, marked in zip(graphs, differs, strict=True):
        widths = [_width(node, i in marked, depth) for i, node in enumerate(graph.nodes)]
        panels.append(Panel(graph, frozenset(marked), lay_out(widths, graph.edges, line), depth))
    top, notes = 22.0, max(len(graph.notes) for graph in graphs)
    tall = max(panel.layout.height for panel in panels)
    legend = [*_legend(panels)]
    wide = max(sum(panel.width for panel in panels) + BETWEEN * (len(panels) - 1), legend[-1][0])
    height = top + tall + 16.0 * notes + 36.0
    names = [graph.title for graph in graphs]
    about = f"{depth} of {', '.join(names)}, from tokens to logits, drawn from the graph that runs"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="zf" role="img" viewBox="0 0 {wide + 2 * MARGIN:.0f} '
        f'{height + 2 * MARGIN:.0f}" width="{wide + 2 * MARGIN:.0f}" height="{height + 2 * MARGIN:.0f}" '
        f'font-family="Helvetica Neue, Arial, sans-serif" font-size="{FONT:g}">',
        f"<title>{escape(' beside '.join(names))}</title><desc>{escape(about)}</desc>{style()}",
    ]
    x = MARGIN + (wide - sum(p.width for p in panels) - BETWEEN * (len(panels) - 1)) / 2
    for panel in panels:
        parts.append(f'<g transform="translate({x:.1f} {MARGIN:g})">{_panel(panel, top)}</g>')
        x += panel.width + BETWEEN
    y = MARGIN + top + tall + 16.0 * notes + 24
    parts += [f'<g transform="translate({MARGIN:g} {y:.1f})">{"".join(text for _, text in legend)}</g>', "</svg>"]
    return "\n".join(parts) + "\n"


def _legend(panels: Sequence[Panel]) -> list[tuple[float, str]]:
    """What colours and marks mean, as far as they are used: where each ends, and its drawing."""
    kinds = {node.kind for panel in panels for node in panel.graph.nodes}
    x, found = 0.0, [(0.0, "")]
    for kind, name in KINDS.items():
        if kind in kinds:
            box = f'<g class="zf-{kind}"><rect x="{x:.1f}" y="-10" width="14" height="12" rx="3"/></g>'
            found.append((x, f"{box}{_text(x + 19, 0, name, 'zf-soft', SMALL, 'start')}"))
            x += 19 + len(name) * FONT * SMALL * 0.52 + 14
            found[-1] = (x, found[-1][1])
    if any(panel.differs for panel in panels):
        mark = "≠ differs" + (f" from {panels[0].graph.title}" if len(panels) > 2 else "")
        found.append((x + len(mark) * FONT * SMALL * 0.52, _text(x, 0, mark, "zf-mark", SMALL, "start")))
    return found


def _panel(panel: Panel, top: float) -> str:
    graph, layout = panel.graph, panel.layout
    shift = (panel.width - layout.width) / 2
    parts = [_text(panel.width / 2, 14, graph.title, "", 1.15, bold=True)]
    parts.append(f'<g transform="translate({shift:.1f} {top:g})">')
    boxes = [_box(node, layout.centres[i], i in panel.differs, panel.depth) for i, node in enumerate(graph.nodes)]
    size = [_size(node, i in panel.differs, panel.depth) for i, node in enumerate(graph.nodes)]
    parts += [_frame(panel)]
    parts += [_arrow(points, size[a], size[b]) for (a, b), points in sorted(layout.arrows.items())]
    parts += [*boxes, "</g>"]
    for k, note in enumerate(graph.notes):
        parts.append(_text(panel.width / 2, top + layout.height + 16.0 * (k + 1), note, "zf-soft", SMALL))
    return "".join(parts)


def _frame(panel: Panel) -> str:
    """The frame around what is repeated, where nothing else stands between."""
    layout = panel.layout
    inside = [layout.centres[i] for i, node in enumerate(panel.graph.nodes) if node.repeated]
    if not inside:
        return ""
    beyond = 26 if panel.depth == "operations" else 21
    low, high = min(y for _, y in inside) - beyond, max(y for _, y in inside) + beyond
    others = [y for (_, y), node in zip(layout.centres, panel.graph.nodes, strict=True) if not node.repeated]
    if any(low < y < high for y in others):
        return ""
    return (
        f'<rect x="{-PAD:g}" y="{low:.1f}" width="{layout.width + 2 * PAD:.1f}" height="{high - low:.1f}" rx="9" '
        f'fill="none" stroke-dasharray="4 4"/>'
        + _text(layout.width + PAD - 2, low - 4, f"× {panel.graph.repeats}", "zf-soft", 1, "end")
    )


def _arrow(points: Sequence[Point], above: Point, below: Point) -> str:
    """A curve through the points that is upright in each layer, between boxes of these sizes."""
    (x, y), (x_end, y_end) = _edge(points[0], points[1][0], above, 1), _edge(points[-1], points[-2][0], below, -1)
    y_end -= 6
    path, last = [f"M{x:.1f} {y:.1f}"], (x, y)
    for x_to, y_to in [*points[1:-1], (x_end, y_end)]:
        bend = 0.55 * (y_to - last[1])
        path.append(
            f"V{y_to:.1f}" if abs(x_to - last[0]) < 0.05
            else f"C{last[0]:.1f} {last[1] + bend:.1f} {x_to:.1f} {y_to - bend:.1f} {x_to:.1f} {y_to:.1f}"
        )  # fmt: skip
        last = (x_to, y_to)
    tip = f"M{x_end - 3.5:.1f} {y_end - 1:.1f}L{x_end:.1f} {y_end + 6:.1f}L{x_end + 3.5:.1f} {y_end - 1:.1f}Z"
    return f'<path d="{"".join(path)}" fill="none"/><path class="zf-tip" d="{tip}"/>'


def _edge(centre: Point, towards: float, size: Point, side: int) -> Point:
    """Where an arrow meets a box: below (side 1) or above (−1), a little to where it comes from or goes."""
    (x, y), (width, height) = centre, size
    off = max(-0.3 * width, min(0.3 * width, (towards - x) / 4))
    inset = height / 2 - (height**2 / 4 - off**2) ** 0.5 if width == height else 0.0
    return x + off, y + side * (height / 2 - inset)


def _words(node: Node, differs: bool, depth: Depth) -> tuple[str, str, str]:
    """The label of a box, what stands softly beside it, and below."""
    label = f"≠ {node.label}" if differs else node.label
    shape = "×".join(map(str, node.shape))
    if depth == "operations":
        return label, shape, node.path.removeprefix("backbone.")
    return label, node.name, ""


def _size(node: Node, differs: bool, depth: Depth) -> tuple[float, float]:
    label, beside, below = _words(node, differs, depth)
    if len(node.label) == 1 and not beside and depth != "operations":
        return (40.0 if differs else 24.0), 24.0
    first = (len(label) + (len(beside) + 1 if beside else 0)) * FONT * CHAR
    return max(first, len(below) * FONT * SMALL * CHAR) + 2 * PAD, 36.0 if below else 26.0


def _width(node: Node, differs: bool, depth: Depth) -> float:
    return _size(node, differs, depth)[0]


def _box(node: Node, centre: Point, differs: bool, depth: Depth) -> str:
    (x, y), (width, height) = centre, _size(node, differs, depth)
    label, beside, below = _words(node, differs, depth)
    soft = f' <tspan class="zf-soft">{escape(beside)}</tspan>' if beside else ""
    about = [f"{node.label} {node.name}".strip(), node.path, "×".join(map(str, node.shape)), *node.weights]
    up = y - 2.5 if below else y + 4.5
    round_ = height / 2 if width <= 40 else 6
    left, kind = x - width / 2, f"zf-{node.kind}{' zf-differs' if differs else ''}"
    return (
        f'<g class="{kind}"><title>{escape("; ".join(filter(None, about)))}</title>'
        f'<rect x="{left:.1f}" y="{y - height / 2:.1f}" width="{width:.1f}" height="{height:g}" rx="{round_:g}"/>'
        f'<text x="{x:.1f}" y="{up:.1f}" text-anchor="middle">{escape(label)}{soft}</text>'
        + (_text(x, y + 12, below, "zf-soft", SMALL) if below else "")
        + "</g>"
    )


def _text(x: float, y: float, text: str, kind: str, size: float, anchor: str = "middle", *, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    kind = f' class="{kind}"' if kind else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}"{kind} font-size="{FONT * size:.1f}" text-anchor="{anchor}"{weight}>'
        f"{escape(text)}</text>"
    )
