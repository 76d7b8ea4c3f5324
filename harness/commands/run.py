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
@click.option("--log", multiple=True, metavar="NAME", help="Log to tensorboard, wandb, mlflow or trackio, too.")
@json_option
def command(
    suite: str,
    overrides: tuple[str, ...],
    root: Path | None,
    workers: int | None,
    log: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run what SUITE still lacks, then print its board.

    The same command resumes a suite that was interrupted.
    """
    from harness.board import report
    from harness.execute.runner import run_suite
    from harness.suite.load import load

    loaded = load(suite, overrides)
    results = run_suite(loaded, root=root, workers=workers, console=console(stderr=as_json), log=log)
    stale = bool(results.ran) or not (results.folder / "board").is_dir()
    if stale or as_json:
        print_boards([report.board_of(loaded, suite, root, save=stale)], as_json=as_json)
    else:
        click.echo(f"nothing was left to run; the board: {results.folder / 'board' / 'index.html'}")
    sys.exit(0 if results.ok else 1)
