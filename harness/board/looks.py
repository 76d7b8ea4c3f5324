"""How charts look: an architecture has one colour, dash and shape in all charts of a board, and all answer to `row`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import altair as alt

from harness.table.rows import Row

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#A09000")
"""Okabe and Ito's palette without black and yellow, which vanish on one of the two page colours."""
DASHES = ((1, 0), (6, 2), (2, 2), (8, 2, 2, 2))
SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "triangle-right")
GREY = "#808080"
"""Of what belongs to no architecture; it can be read on both page colours."""
ROW = alt.param(name="row", value=None)
"""The architecture that stands out, or null for none: whoever shows a chart sets this signal."""
CHOSEN = "row == null || datum.architecture == row"
FAINT = 0.1


class Look(NamedTuple):
    """How one architecture is drawn."""

    colour: str
    dash: Sequence[int]
    shape: str


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name. Equal sets of names give equal looks, so that all charts of a page agree."""
    n = len(OKABE_ITO)
    return {
        name: Look(OKABE_ITO[i % n], DASHES[i // n % len(DASHES)], SHAPES[(i + i // n) % len(SHAPES)])
        for i, name in enumerate(sorted({*names}))
    }


@dataclass(frozen=True, slots=True)
class Frame:
    """What the charts of one page share."""

    looks: Mapping[str, Look]
    width: int | str = "container"
    """Pixels, or `container` for as wide as the element that holds the chart."""
    legend: bool = False
    """Whether a chart names its architectures itself."""

    @property
    def fixed(self) -> bool:
        """Whether nobody can interact with the chart, as on paper."""
        return self.width != "container"

    @property
    def size(self) -> tuple[int, int]:
        """Pixels of a plot whose height does not grow with its rows; as wide as a page, it has at least these."""
        return (self.width, min(300, round(0.7 * self.width))) if isinstance(self.width, int) else (380, 300)

    @property
    def letter(self) -> float:
        """About how wide a letter is, in pixels: type is smaller on paper."""
        return 4.6 if self.fixed else 6.2

    def colour(self, names: Sequence[str], **legend: Any) -> alt.Color:
        """The colours of these architectures; the arguments are further properties of the legend."""
        colours = [self.looks[name].colour for name in names]
        return alt.Color("architecture:N", **self._channel(names, colours, **legend))

    def dash(self, names: Sequence[str]) -> alt.StrokeDash:
        """The dashes of their lines."""
        return alt.StrokeDash("architecture:N", **self._channel(names, [[*self.looks[name].dash] for name in names]))

    def shape(self, names: Sequence[str]) -> alt.Shape:
        """The shapes of their points."""
        return alt.Shape("architecture:N", **self._channel(names, [self.looks[name].shape for name in names]))

    def _channel(self, names: Sequence[str], values: list[Any], **more: Any) -> dict[str, Any]:
        legend = None
        if self.legend:
            longest = max(map(len, names), default=1)
            columns = max(1, int(self.size[0] / (24 + self.letter * longest)))
            legend = alt.Legend(orient="bottom", columns=columns, title=None, symbolLimit=0, symbolOpacity=1, **more)
        return {"scale": alt.Scale(domain=[*names], range=values), "legend": legend}

    def layers(self, *layers: alt.Chart, height: Any, description: str) -> alt.LayerChart:
        """One chart of layers, which answers to `row` and says in words what it shows."""
        size = {"width": self.width, "height": height}
        return alt.layer(*layers, background="transparent", description=description, **size).add_params(ROW)


def opacity(full: float = 1.0, *, unless: float | None = None) -> alt.OpacityValue:
    """Faint where another row was chosen; `unless` is the opacity while none is, where it is not `full`."""
    if unless is None:
        return alt.OpacityValue(FAINT * full, condition={"test": CHOSEN, "value": full})
    nobody, chosen = {"test": "row == null", "value": unless}, {"test": CHOSEN, "value": full}
    return alt.OpacityValue(0, condition=[nobody, chosen])


def table(rows: Iterable[Mapping[str, Any]]) -> alt.InlineData:
    """Rows as the data of a chart, numbers in six figures."""
    return alt.InlineData(values=tuple({key: _six(value) for key, value in row.items()} for row in rows))


def _six(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def interval(row: Row) -> dict[str, Any]:
    """A row's mean and 95% interval, and both in words: `2.634 (95%: 2.612 to 2.656)`."""
    between = "" if row.low is None or row.high is None else f" (95%: {row.low:.4g} to {row.high:.4g})"
    said = "" if row.mean is None else f"{row.mean:.4g}{between}"
    return {"architecture": row.architecture, "score": row.mean, "low": row.low, "high": row.high, "said": said}


def tip(**titles: str) -> list[alt.Tooltip]:
    """A tooltip of these fields, which hold words or whole numbers, with their titles."""
    return [alt.Tooltip(f"{name}:N", title=title) for name, title in titles.items()]


def choice(chart: alt.Chart, fields: Mapping[str, str], frame: Frame) -> tuple[alt.Chart, str, str | None]:
    """The chart with a choice among fields with titles: what to draw, and its title where there is no choice.

    Where nobody can choose, as on paper, it is the first of them.
    """
    first = next(iter(fields))
    if frame.fixed or len(fields) == 1:
        return chart, f"{first}:Q", fields[first]
    radio = alt.binding_radio(options=[*fields], labels=[f"{title} " for title in fields.values()], name="show ")
    shown = alt.param(name="shown", value=first, bind=radio)
    return chart.transform_calculate(chosen="datum[shown]").add_params(shown), "chosen:Q", None


def theme(*, dark: bool = False, paper: bool = False) -> dict[str, Any]:
    """The Vega-Lite configuration of a light or dark page, or of a column of a paper."""
    text, soft, grid = ("#e4e6e8", "#a9afb5", "#34383c") if dark else ("#1d1f21", "#5c6166", "#e3e5e8")
    size = 8 if paper else 11
    axis = {"labelColor": soft, "titleColor": soft, "gridColor": grid, "domainColor": soft, "tickColor": soft}
    sizes = {"labelFontSize": size, "titleFontSize": size, "titleFontWeight": "normal", "labelLimit": 260}
    return {
        "background": "transparent",
        "font": "Liberation Sans, Arial, Helvetica, sans-serif" if paper else "system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": {**axis, **sizes},
        "legend": {
            "labelColor": text,
            "symbolSize": 40 if paper else 80,
            "rowPadding": 1,
            **{key: value for key, value in sizes.items() if key.startswith("label")},
        },
        "text": {"color": text, "fontSize": size},
    }
