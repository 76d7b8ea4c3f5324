"""How the plots of a board look: inline SVG without background, text in the page's font, axes in its muted colour."""

import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#A09000")
"""Okabe and Ito's palette without black and yellow, which vanish on one of the two page colours."""
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = "osD^vPX"
GREY = "#808080"
RC: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "text.color": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "lines.linewidth": 1.5,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "text.parse_math": False,
}
WIDTH, HEIGHT = 5.2, 3.1
"""Inches; a plot grows in height with what it has to name."""
SMALL = 8
"""Points: the size of names inside a plot."""


class Look(NamedTuple):
    """How one architecture is drawn."""

    colour: str
    dashes: Any
    marker: str


PLAIN = Look(GREY, "-", "o")
"""An architecture that is ranked nowhere."""
Looks = Mapping[str, Look]


def styles(names: Sequence[str]) -> dict[str, Look]:
    """The same look for one architecture in every plot of a page."""
    n = len(OKABE_ITO)
    return {
        name: Look(OKABE_ITO[i % n], DASHES[i // n % len(DASHES)], MARKERS[i % len(MARKERS)])
        for i, name in enumerate(names)
    }


def width_of(name: str) -> float:
    """About how wide a name is in a plot, in points."""
    return 0.55 * SMALL * len(name)


@contextmanager
def figure(height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of the page's width with one pair of axes."""
    with matplotlib.rc_context(RC):
        drawn = Figure(figsize=(WIDTH, height), dpi=72, layout="constrained")  # so that a pixel is a point
        FigureCanvasSVG(drawn)
        yield drawn, drawn.subplots()


@contextmanager
def figure_with_legend(height: float, names: Collection[str]) -> Iterator[tuple[Figure, Axes]]:
    """A figure that grows by a legend of these names below the axes."""
    columns = max(1, min(3, int(72 * WIDTH / (45 + max(map(width_of, names))))))
    with figure(height + 0.19 * -(-len(names) // columns)) as (drawn, axes):
        yield drawn, axes
        drawn.legend(loc="outside lower center", ncols=columns, fontsize=SMALL, handlelength=2.6)


@contextmanager
def line_plot(
    series: Mapping[str, tuple[Any, Any]], looks: Looks, x: str, y: str, *, markers: bool = False, **options: Any
) -> Iterator[tuple[Figure, Axes]]:
    """One line for each architecture, named in a legend."""
    with figure_with_legend(HEIGHT, series) as (drawn, axes):
        for name, (at, values) in series.items():
            look = looks.get(name, PLAIN)
            marker = look.marker if markers else ""
            axes.plot(at, values, color=look.colour, linestyle=look.dashes, marker=marker, label=name, **options)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        yield drawn, axes


def svg(drawn: Figure, key: str) -> str:
    """The bare element: no prolog, metadata or fixed size; ids made unique on the page; same bytes every time."""
    stream = io.StringIO()
    with matplotlib.rc_context({**RC, "svg.hashsalt": key}):
        drawn.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(<svg[^>]*?)\s+width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?)\s+height="[^"]*"', r"\1", text, count=1)
    prefix = re.sub(r"\W+", "-", key.encode("ascii", "xmlcharrefreplace").decode())
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{prefix}-", text)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    label = key.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace(GREY, "var(--axis)").replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
