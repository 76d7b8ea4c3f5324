"""`zoobench draw`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from harness.commands.common import assignments_option, plugin_option, print_json, write_file
from harness.errors import UserError
from zoo.types import ROLES

FORMATS = ("svg", "png", "pdf")


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="ARCH...")
@click.option(
    "--depth",
    type=click.Choice(["blocks", "layers", "operations"]),
    default="blocks",
    show_default=True,
    help="How near: operations are all, with shapes.",
)
@click.option(
    "--role",
    type=click.Choice(ROLES),
    help="[default: lm where it can, or the first that it plays]",
)
@assignments_option("options", "An option of every ARCH.")
@plugin_option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A .svg, .png or .pdf file.")
@click.option("--json", "as_json", is_flag=True, help="Print the graphs as JSON instead.")
def command(
    names: tuple[str, ...],
    depth: Any,
    role: Any,
    options: dict[str, Any],
    plugins: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Draw each ARCH from the graph that runs.

    Several stand side by side, and what differs from the first is marked: zoobench draw post_ln pre_ln --out norms.svg
    """
    if out is None and not as_json:
        raise UserError(f"say where: --out {names[0]}.svg", key="--out")
    if out is not None and out.suffix[1:] not in FORMATS:
        raise UserError(f"unknown suffix {out.suffix!r}; known: {', '.join(FORMATS)}", key="--out")
    from zoo.figures import svg
    from zoo.figures.figure import graph_of, marks

    graphs = []
    for name in names:
        try:
            graphs.append(graph_of(name, depth=depth, role=role, options=options))
        except (KeyError, TypeError, ValueError) as error:
            said = str(error.args[0]) if error.args else type(error).__name__
            raise UserError(said if name in said else f"{name}: {said}") from error
    differs = marks(graphs)
    if out is not None:
        write_file(out, as_bytes(svg.draw(graphs, differs, depth), out.suffix[1:]))
    if as_json:
        print_json([as_dict(graph, marked) for graph, marked in zip(graphs, differs, strict=True)])
    else:
        click.echo(f"written to {out}")


def as_bytes(figure: str, format: str) -> bytes:
    """A figure in one of `FORMATS`; a picture has twice as many pixels as points, on white."""
    import vl_convert

    if format == "png":
        return bytes(vl_convert.svg_to_png(on_white(figure), scale=2))
    return bytes(vl_convert.svg_to_pdf(figure)) if format == "pdf" else figure.encode()


def on_white(figure: str) -> str:
    """The figure with a white page behind it."""
    return figure.replace("</style>", '</style><rect width="100%" height="100%" style="fill:#ffffff;stroke:none"/>', 1)


def as_dict(graph: Any, differs: set[int]) -> dict[str, Any]:
    """A graph as JSON has it: its nodes in the order in which they ran, and arrows between their places in it."""
    nodes = [{**dataclasses.asdict(node), "differs": i in differs} for i, node in enumerate(graph.nodes)]
    return {
        "architecture": graph.title,
        "repeats": graph.repeats,
        "notes": graph.notes,
        "nodes": nodes,
        "edges": graph.edges,
    }
