"""`zoobench publish`."""

from pathlib import Path

import click

from harness.commands.common import sign_option, suite_options, written_root_option


@click.command()
@click.argument("suite")
@suite_options
@written_root_option
@sign_option
def command(suite: str, overrides: tuple[str, ...], root: Path | None, sign: Path | None) -> None:
    """Write the finished runs of SUITE as files for git.

    They are records.parquet, curves.parquet, published.json (hashes) and board.md in results/<suite>/. They hold the
    runs of SUITE as it now stands: those made here, and those published before and not made again. With --sign,
    published.json.sig says by whom.
    """
    from harness.board.report import publish
    from harness.records.published import INDEX
    from harness.records.signature import SIGNATURE
    from harness.records.signature import sign as make_signature

    count, folder = publish(suite, overrides, root)
    (folder / SIGNATURE).unlink(missing_ok=True)  # of what was published before
    if sign is not None:
        click.echo(f"signed: {make_signature(folder / INDEX, sign)}")
    click.echo(f"{count} records published in {folder}/: records.parquet, curves.parquet, published.json, board.md")
