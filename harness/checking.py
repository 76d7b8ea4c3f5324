"""The contract's checks over named architectures, plug-ins included: `zoobench check`."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.errors import UserError
from zoo import registry

Row = dict[str, Any]
STYLES = {"passed": "green", "failed": "bold red", "skipped": "dim"}


def check(names: tuple[str, ...], plugins: tuple[str, ...]) -> list[Row]:
    """One row per architecture and check, after importing the plug-ins.

    Raises:
        UserError: a plug-in cannot be imported or registered, or a name is unknown.
    """
    for plugin in plugins:
        try:
            registry.load_plugin(plugin)
        except (ImportError, FileNotFoundError, SyntaxError, ValueError) as error:
            raise UserError(f"cannot import {plugin}: {error}", key="--plugin") from error
    try:
        for name in names:
            registry.get(name)
    except KeyError as error:
        raise UserError(str(error.args[0])) from error
    import torch

    from zoo import checks

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are tiny: more threads would wait for each other
    try:
        return [
            {"architecture": name, **dataclasses.asdict(outcome)}
            for name in dict.fromkeys(names)
            for outcome in checks.run(name)
        ]
    finally:
        torch.set_num_threads(threads)


def show(rows: list[Row], console: Console) -> None:
    """One line per row, what was measured against its limit, and a closing count."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("architecture", "check", "status"):
        table.add_column(column, no_wrap=True)
    for column in ("measured", "limit"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    last = None
    for row in rows:
        name = row["architecture"] if row["architecture"] != last else ""
        last = row["architecture"]
        status = Text(row["status"], style=STYLES[row["status"]])
        table.add_row(name, row["check"], status, _number(row["measured"]), _number(row["limit"]), Text(row["note"]))
    console.print(table)
    counts = {status: sum(row["status"] == status for row in rows) for status in STYLES}
    console.print(", ".join(f"{n} {status}" for status, n in counts.items()))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}" if isinstance(value, float) else str(value)
