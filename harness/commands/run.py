"""`zoobench run`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.commands.board import print_boards
from harness.commands.common import console, json_option, root_option, suite_options, trust_option
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.suite.loaded import LoadedSuite

MOST_READ = 2_000
"""Runs of a suite whose board is printed though none of them was made now."""


@click.command()
@click.argument("suite", required=False)
@suite_options
@trust_option
@root_option
@click.option(
    "--task", "tasks", multiple=True, metavar="NAME,...", help="Only these tasks of SUITE; without SUITE: the tasks."
)
@click.option("--track", "tracks", multiple=True, metavar="NAME,...", help="Only these tracks of SUITE.")
@click.option("--arch", "architectures", multiple=True, metavar="NAME,...", help="Without SUITE: the architectures.")
@click.option("--seeds", type=click.IntRange(1, 100_000), help="Without SUITE: how many [default: 3].")
@click.option("--params", metavar="COUNT", help="Without SUITE: parameters of each, such as 400k [default: as quick].")
@click.option("--tokens", metavar="COUNT", help="Without SUITE: training tokens, such as 600k [default: as quick].")
@click.option("--name", help="Without SUITE: what it is called [default: ad-hoc-TASK-ARCH-...].")
@click.option("--workers", type=click.IntRange(1), help="Runs at a time [default: one per GPU, or per core].")
@click.option(
    "--threads", type=click.IntRange(1), help="Threads of each run [default: the cores divided by the workers]."
)
@click.option("--device", metavar="auto|cpu|cuda|cuda:N", help="Where runs compute [default: the suite's, or auto].")
@click.option("--on", type=click.Choice(["here", "ray", "slurm"]), default="here", show_default=True, help="Who runs.")
@click.option("--address", metavar="HOST:PORT", help="With --on ray: the cluster [default: $RAY_ADDRESS].")
@click.option(
    "--with",
    "cluster",
    multiple=True,
    metavar="KEY=VALUE",
    help="With --on: what Ray or submitit is told of each run, as num_gpus=1 or slurm_partition=gpu.",
)
@click.option("--log", multiple=True, metavar="NAME", help="Also log to tensorboard, wandb, mlflow or trackio.")
@click.option("--ignore-published", is_flag=True, help="Do not count published runs as made.")
@click.option("--quiet", is_flag=True, help="Print no progress, only the board and the verdicts.")
@json_option
def command(
    suite: str | None,
    overrides: tuple[str, ...],
    trust: bool,
    root: Path | None,
    tasks: tuple[str, ...],
    tracks: tuple[str, ...],
    workers: int | None,
    threads: int | None,
    device: str | None,
    on: str,
    address: str | None,
    cluster: tuple[str, ...],
    log: tuple[str, ...],
    ignore_published: bool,
    quiet: bool,
    as_json: bool,
    **adhoc: Any,
) -> None:
    """Train what SUITE still lacks, then print its board.

    It ends with one sentence a table: who leads, and who ties. The same command resumes a suite that was interrupted,
    and makes nothing twice; published runs count as made. A long suite may be made task by task, with --task. Without
    SUITE, `zoobench run --task text --arch pre_ln,rwkv4` compares these with the settings of quick.
    """
    from harness.execute.runner import run_suite

    given = {key: value for key, value in adhoc.items() if value}
    loaded = _load(suite, overrides, trust, given if suite else {**given, "tasks": tasks})
    screen = console(stderr=as_json)
    screen.quiet = quiet
    options: dict[str, Any] = {"workers": workers, "threads": threads, "device": device, "log": log, "console": screen}
    options |= {"on": on, "address": address, "cluster": dict(map(_setting, cluster))}
    options |= {"tasks": _names(tasks) if suite else (), "tracks": _names(tracks)}
    try:
        results = run_suite(loaded, root=root, ignore_published=ignore_published, **options)
    finally:
        if suite is None:
            _keep(loaded, root)
    if not results.ran and len(results.made) > MOST_READ and not as_json:
        screen.print(f"its board: zoobench board {suite or loaded.name}", highlight=False, markup=False)
    else:
        from harness.board import report
        from harness.board.verdicts import sentences

        made = report.with_records(loaded, suite or loaded.name, root)[0]
        print_boards([made], as_json=as_json)
        if not as_json:
            screen.print("\nto read it in a browser: zoobench site site", highlight=False)
            click.echo("\n" + "\n".join(sentences(made)))
    sys.exit(0 if results.ok else 1)


def _names(given: tuple[str, ...]) -> list[str]:
    return [name.strip() for names in given for name in names.split(",")]


def _setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE, the value read as YAML."""
    import yaml

    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UserError(f"expected KEY=VALUE, not {text!r}", file="--with")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        return key, value


def _load(suite: str | None, overrides: tuple[str, ...], trust: bool, adhoc: dict[str, Any]) -> LoadedSuite:
    """The suite that is named, or the one that the options make."""
    from harness.suite import adhoc as of_options
    from harness.suite.load import load

    if suite is not None:
        if adhoc:
            given = {"architectures": "arch"}.get(name := next(iter(adhoc)), name)
            raise UserError(f"--{given} goes without SUITE; change a suite's own keys by --set KEY=VALUE")
        return load(suite, overrides, trust=trust, to_run=True)
    tasks, architectures = adhoc.pop("tasks", ()), adhoc.pop("architectures", ())
    if not tasks or not architectures:
        raise UserError("name a SUITE, or both --task and --arch; `zoobench ls suites` lists suites")
    return load(of_options.source(tasks, architectures, **adhoc), overrides)


def _keep(loaded: LoadedSuite, root: Path | None) -> None:
    """Write a suite that stands in no file beside its results, where `board` and `status` find it by name."""
    import yaml

    from harness.records.files import write_atomic
    from harness.records.store import Store

    store = Store(loaded.name, root)
    if store.folder.is_dir():
        text = yaml.safe_dump(loaded.source.data, sort_keys=False, allow_unicode=True)
        write_atomic(store.own_path("suite.yaml"), text)
