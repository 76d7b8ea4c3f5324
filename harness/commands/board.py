"""`zoobench board`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.commands.common import console, json_option, print_json, root_option, suite_options


@click.command()
@click.argument("suites", nargs=-1, required=True, metavar="SUITE...")
@suite_options
@root_option
@json_option
def command(suites: tuple[str, ...], overrides: tuple[str, ...], root: Path | None, as_json: bool) -> None:
    """Print the ranking of each SUITE, and write it as pages.

    They go to results/<suite>/board/.
    """
    print_boards(suites, overrides, root, as_json=as_json)


def print_boards(
    suites: tuple[str, ...], overrides: tuple[str, ...], root: Path | None, *, as_json: bool, save: bool = True
) -> None:
    """Print the board of each suite, and write it beside the records unless `save` is false."""
    from harness.board import render, report

    rows: list[dict[str, Any]] = []
    for suite in suites:
        board, folder = report.board(suite, overrides, root, save=save)
        if as_json:
            rows += board.to_rows()
        else:
            render(board, console())
            click.echo(f"written to {folder}/: index.html, board.md, board.csv, board.json")
    if as_json:
        print_json(rows)
