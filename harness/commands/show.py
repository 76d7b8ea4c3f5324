"""`zoobench show`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from harness.commands.common import json_option, output

if TYPE_CHECKING:
    from rich.console import Console


@click.command()
@click.argument("name")
@json_option
def command(name: str, as_json: bool) -> None:
    """Show everything known of NAME.

    NAME is an architecture, a task, a suite, a corpus, or a question.
    """
    from harness.commands import catalog

    output(catalog.find(name), show_row, as_json=as_json)


def show_row(row: dict[str, Any], console: Console) -> None:
    """Everything in a row of the catalog, a line each; lists of sentences item by item."""
    from harness.commands.catalog import format_error, format_options, format_value

    for key, value in row.items():
        if key in _ITEMS and value:
            console.print(f"[bold]{key}[/]")
            for item in value.items() if isinstance(value, dict) else value:
                console.print(f"  - {_ITEMS[key](item)}", highlight=False, markup=False)
        else:
            write = (
                format_error if key.endswith("error") else format_options if isinstance(value, dict) else format_value
            )
            console.print(f"[bold]{key:<14}[/] ", end="")
            console.print("none" if key in _ITEMS else write(value), highlight=False, markup=False)


def _override(override: dict[str, Any]) -> str:
    from harness.records.record import Override
    from harness.training.overrides import describe

    return describe(Override.from_dict(override))


def _proof(proof: dict[str, Any]) -> str:
    from harness.commands.catalog import format_error

    outputs, gradients = format_error(proof["output"]), format_error(proof["gradient"])
    return f"{proof['oracle']}: outputs {outputs}, gradients {gradients}"


def _difficulty(named: tuple[str, dict[str, Any]]) -> str:
    """`smoke: options length=32; stop tokens=200000; params 33000`."""
    from harness.commands.catalog import format_options

    name, settings = named
    parts = {key: format_options(value) if isinstance(value, dict) else value for key, value in settings.items()}
    return f"{name}: " + "; ".join(f"{key} {part}" for key, part in parts.items() if part)


_ITEMS: dict[str, Callable[[Any], str]] = {
    "defaults": _override,
    "oracles": _proof,
    "difficulties": _difficulty,
    "deviations": str,
    "sources": str,
}
"""How an item of each of these keys is written."""
