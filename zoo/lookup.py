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
            raise ValueError(f"unknown {self.what} {kind!r}{nearest(kind, self)}")
        module, _, name = self[kind].partition(":")
        return getattr(importlib.import_module(module), name)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: `; did you mean 'x'?`, or what is known where nothing is near."""
    names = [str(k) for k in known]
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(sorted(names))}" if names else ""
