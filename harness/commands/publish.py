"""`zoobench publish`."""

from pathlib import Path

import click

from harness.commands.common import root_option, suite_options


@click.command()
@click.argument("suite")
@suite_options
@root_option
def command(suite: str, overrides: tuple[str, ...], root: Path | None) -> None:
    """Write the finished runs of SUITE as files for git.

    They are records.parquet, curves.parquet, published.json (hashes) and board.md in results/<suite>/. They hold the
    runs of SUITE as it now stands: those made here, and those published before and not made again.
    """
    from harness.board.report import publish

    count, folder = publish(suite, overrides, root)
    click.echo(f"{count} records published in {folder}/: records.parquet, curves.parquet, published.json, board.md")
