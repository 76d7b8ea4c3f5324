"""`zoobench compare`."""

from pathlib import Path

import click

from harness.commands.common import json_option, output, root_option, suite_options


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.argument("suite")
@suite_options
@root_option
@json_option
def command(first: str, second: str, suite: str, overrides: tuple[str, ...], root: Path | None, as_json: bool) -> None:
    """Compare architectures A and B on every task of SUITE."""
    from harness.board import report

    rows = report.compare(first, second, suite, overrides, root)
    output(rows, lambda rows, console: report.show_comparison(first, second, rows, console), as_json=as_json)
