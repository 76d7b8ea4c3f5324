"""`zoobench board`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.commands.common import console, json_option, root_option, suite_options, write_file
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.board import Board

FORMATS = ("latex", "markdown", "csv", "json", "parquet")


@click.command()
@click.argument("suites", nargs=-1, required=True, metavar="SUITE...")
@suite_options
@root_option
@click.option("--format", "format", type=click.Choice(FORMATS), help="Print this instead [default: by --out's suffix].")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file, not to the screen.")
@json_option
def command(
    suites: tuple[str, ...],
    overrides: tuple[str, ...],
    root: Path | None,
    format: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Print the ranking of each SUITE.

    With --format or --out, print or write it for papers and programs instead.
    """
    from harness.board import report

    format = format or ("json" if as_json else _format_of(out))
    made = [report.board(suite, overrides, root) for suite in suites]
    if format is None:
        print_boards(made, as_json=False)
    else:
        export(made, format, out)


def _format_of(out: Path | None) -> str | None:
    from harness.board.formats import SUFFIXES

    if out is not None and out.suffix not in SUFFIXES:
        raise UserError(f"unknown suffix {out.suffix!r}; known: {', '.join(SUFFIXES)}, or say --format", key="--out")
    return None if out is None else SUFFIXES[out.suffix]


def export(boards: list[Board], format: str, out: Path | None) -> None:
    """Write boards in a format, to a file or to standard output."""
    from harness.board.formats import FORMATS

    if format == "parquet" and out is None:
        raise UserError("parquet is not text; name a file with --out board.parquet", key="--format")
    written = FORMATS[format](boards)
    data = written.encode() if isinstance(written, str) else written
    if out is None:
        click.echo(data, nl=False)
        return
    write_file(out, data)


def print_boards(boards: list[Board], *, as_json: bool) -> None:
    """Print boards, one after the other."""
    from harness.board import render

    if as_json:
        export(boards, "json", None)
        return
    for board in boards:
        render(board, console())
