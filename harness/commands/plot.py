"""`zoobench plot`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.commands.common import console, root_option, suite_options, write_file
from harness.errors import UserError


@click.command()
@click.argument("suite")
@click.argument("name", required=False)
@suite_options
@root_option
@click.option("--task", help="The task, where several have such a chart.")
@click.option("--track", help="The track, where several have it.")
@click.option("--width", type=click.IntRange(100), default=252, show_default=True, help="Width of the plot, in points.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A .pdf, .svg, .png, .html or .json file.")
def command(
    suite: str,
    name: str | None,
    overrides: tuple[str, ...],
    root: Path | None,
    task: str | None,
    track: str | None,
    width: int,
    out: Path | None,
) -> None:
    """Draw a chart of SUITE's board for a paper.

    Without NAME, list what can be drawn.
    """
    from harness.board import export, report
    from harness.board.tables import print_section

    board, records = report.of_suite(suite, overrides, root)
    drawn = export.drawings(board, records, width)
    if name is None:
        print_section(export.listing(drawn), console())
        return
    chosen = export.choose(drawn, name, task, track)
    if out is None:
        raise UserError(f"say where: --out {name}.pdf", key="--out")
    if out.suffix[1:] not in export.FORMATS:
        raise UserError(f"unknown suffix {out.suffix!r}; known: {', '.join(export.FORMATS)}", key="--out")
    write_file(out, export.as_bytes(chosen.chart, out.suffix[1:]))
    click.echo(f"written to {out}: {chosen.caption}")
