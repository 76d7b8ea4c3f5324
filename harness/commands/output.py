"""How commands print: JSON for programs, tables for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")


def output(data: T, show: Callable[[T, Console], None], *, as_json: bool) -> None:
    """Print JSON, or what `show` makes of the data."""
    if as_json:
        print_json(data)
    else:
        show(data, console())


def print_json(data: Any) -> None:
    """JSON on standard output, with null for NaN."""
    from harness.records.store import to_json

    click.echo(to_json(data), nl=False)


def console(*, stderr: bool = False) -> Console:
    """A terminal, or 120 columns of plain text."""
    from rich.console import Console

    terminal = Console(stderr=stderr)
    return terminal if terminal.is_terminal else Console(stderr=stderr, width=120)
