"""harness: runs, measures, judges and publishes.

`harness.run(suite)` runs a suite; `harness.results(suite)` and `harness.curves(suite)` are its records for pandas.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # `python -m harness` would look for typing in the working directory
if TYPE_CHECKING:
    from typing import Any

    from harness.board.results import Results, run
    from harness.records.frames import curves, results

__all__ = ["Results", "curves", "results", "run"]
_MODULES = {"Results": "board.results", "run": "board.results"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"harness.{_MODULES.get(name, 'records.frames')}"), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
