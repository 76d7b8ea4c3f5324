"""The contract's checks over named architectures and tasks, plug-ins included: `zoobench check`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import tasks
from harness.errors import UserError
from zoo import architectures
from zoo.registry import load_plugin

Row = dict[str, Any]
Kind: TypeAlias = Literal["architecture", "task"]
STYLES = {"passed": "green", "failed": "bold red", "skipped": "dim"}


def check(names: tuple[str, ...], plugins: tuple[str, ...]) -> list[Row]:
    """One row per architecture or task and check, after importing the plug-ins.

    A row has the name under `architecture` or `task`, and what the check found: `check`, `status`, `measured`, `limit`,
    `note`.

    Raises:
        UserError: a plug-in cannot be imported or registered, or a name is unknown, or both an architecture's and a
            task's.
    """
    for plugin in plugins:
        try:
            load_plugin(plugin)
        except (ImportError, FileNotFoundError, SyntaxError, ValueError) as error:
            raise UserError(f"cannot import {plugin}: {error}", key="--plugin") from error
    asked = dict.fromkeys((kind_of(name), name) for name in names)
    import torch

    import tasks.checks
    from zoo import checks

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are tiny: more threads would wait for each other
    try:
        return [
            {kind: name, **dataclasses.asdict(result)}
            for kind, name in asked
            for result in (checks.run(name) if kind == "architecture" else tasks.checks.run(name))
        ]
    finally:
        torch.set_num_threads(threads)


def kind_of(name: str) -> Kind:
    """Whether `name` is an architecture's or a task's, former names of tasks included.

    Raises:
        UserError: it is neither's, or both's.
    """
    is_architecture, is_task = _known(architectures.get, name), _known(tasks.get, name)
    if is_architecture and is_task:
        raise UserError(f"{name!r} is the name of an architecture and of a task: rename one of them")
    if is_architecture or is_task:
        return "architecture" if is_architecture else "task"
    near = difflib.get_close_matches(name, [*architectures.names(), *tasks.names()], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "see zoobench ls architectures and zoobench ls tasks"
    raise UserError(f"unknown architecture or task {name!r}; {hint}")


def _known(get: Callable[[str], Any], name: str) -> bool:
    try:
        get(name)
    except KeyError:
        return False
    return True


def show(rows: list[Row], console: Console) -> None:
    """One line per row, what was measured against its limit, and a closing count."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "check", "status"):
        table.add_column(column, no_wrap=True)
    for column in ("measured", "limit"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    last = None
    for row in rows:
        own = row.get("architecture") or row["task"]
        name = own if own != last else ""
        last = own
        status = Text(row["status"], style=STYLES[row["status"]])
        table.add_row(name, row["check"], status, _number(row["measured"]), _number(row["limit"]), Text(row["note"]))
    console.print(table)
    counts = {status: sum(row["status"] == status for row in rows) for status in STYLES}
    console.print(", ".join(f"{n} {status}" for status, n in counts.items()))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}" if isinstance(value, float) else str(value)
