"""`zoobench status`."""

from __future__ import annotations

from pathlib import Path

import click

from harness.commands.common import json_option, print_json, root_option, suite_options


@click.command()
@click.argument("suite", required=False)
@suite_options
@root_option
@json_option
def command(suite: str | None, overrides: tuple[str, ...], root: Path | None, as_json: bool) -> None:
    """Count the runs of SUITE that are finished, under way, or to do.

    Without SUITE, count the records of every suite that has results.
    """
    from harness.execute.status import status

    rows = status(suite, root, overrides)
    if as_json:
        print_json(rows)
    for row in [] if as_json else rows:
        counts = ", ".join(f"{n} {what}" for what, n in row["counts"].items() if n)
        click.echo(f"{row['suite']}: {counts or 'nothing yet'}")
