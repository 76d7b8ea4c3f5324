"""`zoobench review`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.commands.common import (
    console,
    json_option,
    plugin_option,
    print_json,
    rerun_options,
    root_option,
    suite_options,
    trust_option,
)

if TYPE_CHECKING:
    from harness.sharing.review import Review


@click.command()
@click.argument("bundle", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("suite")
@suite_options
@trust_option
@root_option
@plugin_option
@rerun_options(1)
@json_option
def command(
    bundle: Path,
    suite: str,
    overrides: tuple[str, ...],
    trust: bool,
    root: Path | None,
    plugins: tuple[str, ...],
    rerun: int,
    tolerance: float | None,
    as_json: bool,
) -> None:
    """Check the runs in BUNDLE against your SUITE.

    Nothing in the bundle is imported or run; SUITE is your own. Each reason to refuse it is a line; exit status 1 says
    that there is one.
    """
    from harness.records.store import Store
    from harness.sharing.review import review, trusted
    from harness.suite.load import load

    loaded = load(suite, overrides, trust=trust)
    ours = trusted(Store(loaded.name, root))
    found = review(bundle, loaded, ours=ours, count=rerun, tolerance=tolerance, console=console(stderr=as_json))
    if as_json:
        print_json(found)
    else:
        print_review(found)
    sys.exit(0 if found.accepted else 1)


def print_review(found: Review) -> None:
    """A line for each run that was made again, one for each finding, and the verdict."""
    from harness.errors import printable

    for line in [*found.again, *found.findings, found]:
        click.echo(printable(str(line)))
