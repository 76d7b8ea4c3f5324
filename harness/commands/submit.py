"""`zoobench submit`."""

from pathlib import Path

import click

from harness.commands.common import root_option, sign_option, suite_options


@click.command()
@click.argument("suite")
@suite_options
@root_option
@click.option("--by", default="anonymous", show_default=True, help="Who made the runs, as the board will say.")
@click.option("--out", "file", type=click.Path(path_type=Path), help="The bundle [default: SUITE.zip].")
@sign_option
def command(
    suite: str, overrides: tuple[str, ...], root: Path | None, by: str, file: Path | None, sign: Path | None
) -> None:
    """Bundle your runs of SUITE for others.

    The bundle is one zip file of the runs made here: records, curves, where they were made, and hashes of it all.
    Send it to whoever keeps the board.
    """
    from harness.sharing.bundle import submit

    made, count = submit(suite, by, file, overrides, root, sign)
    click.echo(f"{count} runs by {by} in {made}")
