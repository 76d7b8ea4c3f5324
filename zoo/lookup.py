"""Names of components and the classes behind them, imported on first use."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any


class Table(dict[str, str]):
    """Component names mapped to `module:Class`; `table.resolve(kind)` gives the class."""

    def __init__(self, what: str, items: dict[str, str]) -> None:
        super().__init__(items)
        self.what = what

    def resolve(self, kind: str | type) -> Any:
        """The class called `kind` (a class is its own answer).

        Raises:
            ValueError: unknown; the message names the nearest known one.
        """
        if not isinstance(kind, str):
            return kind
        if kind not in self:
            near = difflib.get_close_matches(kind, self, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(self))}"
            raise ValueError(f"unknown {self.what} {kind!r}; {hint}")
        module, _, name = self[kind].partition(":")
        return getattr(importlib.import_module(module), name)


def nearest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest known name, or nothing where none is near; ends an error message."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
