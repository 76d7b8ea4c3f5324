"""`zoobench merge`."""

import sys
from pathlib import Path

import click

from harness.commands.common import (
    console,
    json_option,
    plugin_option,
    print_json,
    rerun_options,
    suite_options,
    trust_option,
    written_root_option,
)


@click.command()
@click.argument(
    "bundles",
    nargs=-1,
    required=True,
    metavar="BUNDLE...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--into", "suite", required=True, metavar="SUITE", help="The suite whose published runs they join.")
@suite_options
@trust_option
@written_root_option
@plugin_option
@rerun_options(0)
@json_option
def command(
    bundles: tuple[Path, ...],
    suite: str,
    overrides: tuple[str, ...],
    trust: bool,
    root: Path | None,
    plugins: tuple[str, ...],
    rerun: int,
    tolerance: float | None,
    as_json: bool,
) -> None:
    """Publish the runs of each BUNDLE with yours.

    Every bundle is reviewed first; if one is refused, nothing changes. On the board its runs are `reported` and have no
    rank, or with --rerun `reviewed`.
    """
    from harness.commands.review import print_review
    from harness.errors import printable
    from harness.sharing.merge import merge

    shown = console(stderr=as_json)
    done = merge(bundles, suite, overrides, root, trust=trust, count=rerun, tolerance=tolerance, console=shown)
    if as_json:
        print_json(done)
    else:
        for review in done.reviews:
            print_review(review)
        for line in done.kept:
            click.echo(printable(line))
        click.echo(f"{done.added} runs added to {done.folder}" if done.accepted else "nothing was merged")
    sys.exit(0 if done.accepted else 1)
