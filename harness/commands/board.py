"""`zoobench board`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.commands.common import console, json_option, print_json, root_option, suite_options

if TYPE_CHECKING:
    from harness.board import Board


@click.command()
@click.argument("suites", nargs=-1, required=True, metavar="SUITE...")
@suite_options
@root_option
@json_option
def command(suites: tuple[str, ...], overrides: tuple[str, ...], root: Path | None, as_json: bool) -> None:
    """Print the ranking of each SUITE, and write it to results/<suite>/board/board.md."""
    from harness.board import report

    print_boards((report.board(suite, overrides, root) for suite in suites), as_json=as_json)


def print_boards(boards: Iterable[tuple[Board, Path]], *, as_json: bool) -> None:
    """Print boards, each with the folder it was written to."""
    from harness.board import render

    rows: list[dict[str, Any]] = []
    for board, folder in boards:
        if as_json:
            rows += board.to_rows()
        else:
            render(board, console())
            click.echo(f"written to {folder / 'board.md'}")
    if as_json:
        print_json(rows)
