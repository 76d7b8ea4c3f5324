"""Options that several commands share, and how they print."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
Command = Callable[..., None]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def _results(context: click.Context, option: click.Parameter, given: str | None, *, write: bool) -> Path | None:
    """The folder of results: a mirror of them where a URL was given, to which what was written is sent at the end."""
    if given is None:
        return None
    from harness.records.mirror import folder_of, mirror_of

    folder = folder_of(given)
    if write and (mirror := mirror_of(folder)):
        context.call_on_close(mirror.send)
    return folder


_about_results = "The folder of results, or a URL such as s3://bucket/results [default: $ZOOBENCH_RESULTS or results]."
root_option, written_root_option = (
    click.option(
        "--results",
        "root",
        metavar="PATH",
        envvar="ZOOBENCH_RESULTS",
        callback=functools.partial(_results, write=write),
        help=_about_results,
    )
    for write in (False, True)
)


sign_option = click.option(
    "--sign", type=click.Path(path_type=Path), metavar="KEY", help="Sign with an SSH key (ssh-keygen -Y)."
)
trust_option = click.option("--trust", is_flag=True, help="Import what it names as code; asked once for each content.")


def suite_options(command: Command) -> Command:
    """Add `--set` and `--difficulty`; `command` gets both as `overrides`."""

    @click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the suite.")
    @click.option(
        "--difficulty", metavar="NAME", help="Take the tasks at smoke, small or paper size, as suite SUITE-NAME."
    )
    @functools.wraps(command)
    def wrapped(*args: Any, overrides: tuple[str, ...], difficulty: str | None, **kwargs: Any) -> None:
        chosen = (f"difficulty={difficulty}",) if difficulty else ()
        command(*args, overrides=(*overrides, *chosen), **kwargs)

    return wrapped


def assignments_option(name: str, help: str) -> Callable[[Command], Command]:
    """Make a `--set KEY=VALUE` that `command` gets as the mapping `name`."""

    def parse(context: click.Context, option: click.Parameter, pairs: tuple[str, ...]) -> dict[str, Any]:
        from harness.suite.load import assignment

        return dict(map(assignment, pairs))

    return click.option("--set", name, multiple=True, callback=parse, metavar="KEY=VALUE", help=help)


weights_option = assignments_option("weights_options", "An option of published weights, such as tokenizer=…")


def _import_plugins(context: click.Context, option: click.Parameter, plugins: tuple[str, ...]) -> tuple[str, ...]:
    from zoo.registry import load_plugin

    for plugin in plugins:
        try:
            load_plugin(plugin)
        except (ImportError, FileNotFoundError, SyntaxError, ValueError) as error:
            raise UserError(f"cannot import {plugin}: {error}", key="--plugin") from error
    return plugins


plugin_option = click.option(
    "--plugin", "plugins", multiple=True, callback=_import_plugins, metavar="FILE|MODULE",
    help="Python code to import first.",
)  # fmt: skip


def rerun_options(default: int) -> Callable[[Command], Command]:
    """Make `--rerun` and `--tolerance`: how many recorded runs are made again, and how far apart they may be."""
    count = click.option(
        "--rerun", type=click.IntRange(0), default=default, show_default=True, metavar="K",
        help="Make K runs again, drawn at random over the rows, and compare.",
    )  # fmt: skip
    tolerance = click.option(
        "--tolerance", type=click.FloatRange(0),
        help="How far apart scores may be, relative [default: 0 on the same machine, 0.01 elsewhere].",
    )  # fmt: skip
    return lambda command: count(tolerance(command))


def output(data: T, show: Callable[[T, Console], None], *, as_json: bool) -> None:
    """Print JSON, or what `show` makes of the data."""
    if as_json:
        print_json(data)
    else:
        show(data, console())


def write_file(path: Path, data: bytes) -> None:
    """Write what a command was told to write; into a device or pipe as it is.

    Raises:
        OSError: the file cannot be written.
    """
    from zoo import files

    if path.exists() and not path.is_file():
        path.write_bytes(data)
    else:
        files.write(path, data)


def print_json(data: Any) -> None:
    """JSON on standard output, with null for NaN."""
    from harness.records.files import to_json

    click.echo(to_json(data), nl=False)


def console(*, stderr: bool = False) -> Console:
    """A terminal, or 120 columns of plain text."""
    from rich.console import Console

    terminal = Console(stderr=stderr)
    return terminal if terminal.is_terminal else Console(stderr=stderr, width=120)
