"""`zoobench run`."""

import sys
from pathlib import Path

import click

from harness.commands.board import print_boards
from harness.commands.common import console, json_option, root_option, suite_options


@click.command()
@click.argument("suite")
@suite_options
@root_option
@click.option("--workers", type=click.IntRange(1), help="Runs at a time [default: one per core].")
@click.option("--ignore-published", is_flag=True, help="Make runs again that were published with the suite.")
@json_option
def command(
    suite: str,
    overrides: tuple[str, ...],
    root: Path | None,
    workers: int | None,
    ignore_published: bool,
    as_json: bool,
) -> None:
    """Run what SUITE still lacks, then print its board.

    It ends with one sentence a table: who leads, and who ties. The same command resumes a suite that was interrupted.
    """
    from harness.board import report
    from harness.board.verdicts import sentences
    from harness.execute.runner import run_suite
    from harness.suite.load import load

    loaded = load(suite, overrides)
    screen = console(stderr=as_json)
    results = run_suite(loaded, root=root, workers=workers, ignore_published=ignore_published, console=screen)
    made = report.board_of(loaded, suite, root)
    print_boards([made], as_json=as_json)
    if not as_json:
        click.echo("\n" + "\n".join(sentences(made)) + "\n\nto read it in a browser: zoobench site site")
    sys.exit(0 if results.ok else 1)
