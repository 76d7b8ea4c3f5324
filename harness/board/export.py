"""Charts as files: vector graphics with their fonts, pictures, pages, and specifications."""

import altair as alt

from harness.board.looks import theme

FORMATS = ("pdf", "svg", "png", "html", "json")


def png(chart: alt.LayerChart) -> bytes:
    """A chart as a picture of 150 pixels an inch on white."""
    return as_bytes(chart, "png")


def as_bytes(chart: alt.LayerChart, format: str) -> bytes:
    """A chart in one of `FORMATS`, on a light ground, in small type.

    A PDF embeds the fonts of its text; an SVG names them. A page loads nothing from elsewhere.
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
    from harness.records.store import to_json

    return to_json(spec | {"config": config}).encode()
