"""`zoobench publish`."""

from pathlib import Path

import click

from harness.commands.common import root_option, suite_options


@click.command()
@click.argument("suite")
@suite_options
@root_option
def command(suite: str, overrides: tuple[str, ...], root: Path | None) -> None:
    """Mark the records of SUITE as published.

    Other people's `run` makes them anew; `board` shows them.
    """
    from harness.records.store import Store
    from harness.suite.load import load

    store = Store(load(suite, overrides).name, root)
    click.echo(f"{store.publish()} records of {store.folder} are marked as published")
