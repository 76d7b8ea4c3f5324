"""`zoobench check`: the contracts of architectures and tasks, plug-ins included, put to the test."""

from __future__ import annotations

import dataclasses
import difflib
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from harness.commands.common import json_option, output, plugin_option
from harness.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

Row = dict[str, Any]
STYLES = {"passed": "green", "failed": "bold red", "skipped": "dim"}


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@plugin_option
@json_option
def command(names: tuple[str, ...], plugins: tuple[str, ...], as_json: bool) -> None:
    """Test that each NAME keeps its contract.

    An architecture's: causality, resumption, padding, gradients and more. A task's: pure examples, disjoint splits,
    shapes, fingerprint, baselines and more.
    """
    rows = run_checks(names)
    output(rows, show_checks, as_json=as_json)
    sys.exit(1 if any(row["status"] == "failed" for row in rows) else 0)


def run_checks(names: tuple[str, ...]) -> list[Row]:
    """One row per architecture or task and check: its name under `architecture` or `task`, and the check's result.

    Raises:
        UserError: a name is unknown, or both an architecture's and a task's.
    """
    kinds = {name: kind_of(name) for name in names}
    import tasks.checks
    import zoo.checks
    from harness import machine

    run = {"architecture": zoo.checks.run, "task": tasks.checks.run}
    with machine.threads(1):  # the models are tiny: more threads would wait for each other
        return [
            {kind: name, **dataclasses.asdict(result)} for name, kind in kinds.items() for result in run[kind](name)
        ]


def kind_of(name: str) -> str:
    """Whether `name` is an architecture's or a task's, former names of tasks included.

    Raises:
        UserError: it is neither's, or both's.
    """
    import tasks
    from zoo import architectures

    kinds = []
    for kind, get in (("architecture", architectures.get), ("task", tasks.get)):
        with suppress(KeyError):
            get(name)
            kinds.append(kind)
    if len(kinds) > 1:
        raise UserError(f"{name!r} is the name of an architecture and of a task: rename one of them")
    if not kinds:
        near = difflib.get_close_matches(name, [*architectures.names(), *tasks.names()], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "see zoobench ls architectures and zoobench ls tasks"
        raise UserError(f"unknown architecture or task {name!r}; {hint}")
    return kinds[0]


def show_checks(rows: list[Row], console: Console) -> None:
    """One line per row, what was measured against its limit, and a closing count."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table, last = Table(box=box.SIMPLE_HEAD, pad_edge=False), None
    for column in ("name", "check", "status", "measured", "limit"):
        table.add_column(column, no_wrap=True, justify="right" if column in ("measured", "limit") else "left")
    table.add_column("note", overflow="fold")
    for row in rows:
        name = row.get("architecture") or row["task"]
        status, note = Text(row["status"], style=STYLES[row["status"]]), Text(row["note"])
        numbers = (_number(row["measured"]), _number(row["limit"]))
        table.add_row(name if name != last else "", row["check"], status, *numbers, note)
        last = name
    console.print(table)
    counts = {status: sum(row["status"] == status for row in rows) for status in STYLES}
    console.print(", ".join(f"{n} {status}" for status, n in counts.items()))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}" if isinstance(value, float) else str(value)
