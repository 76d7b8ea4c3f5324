"""harness: runs, measures, judges and publishes. `harness.run(suite) -> Results` is the whole of it from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.execute.runner import Results, run

__all__ = ["Results", "run"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from harness.execute import runner

        return getattr(runner, name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
