"""One call in a process of its own, for code that may never return."""

from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

from harness.isolation import tree
from harness.isolation.supervisor import Bounds, Report, Supervised


class Unanswered(Exception):
    """The call did not return: it raised, crashed, ended its process, or took too long."""


def attempt(function: Callable[..., Any], *args: Any, seconds: float) -> Any:
    """What `function(*args)` returns in a process of its own, which is ended with all it started.

    Raises:
        Unanswered: it did not return within `seconds`.
    """
    with tree.no_orphans():
        process, answers = Supervised(Bounds(timeout=seconds), _answer, function, args), list[dict[str, Any]]()
        while not process.gone:
            wait([process.pipe])
            answers += process.events()
    if answers:
        return answers[0]["value"]
    ended = process.ended
    if ended is not None and ended.cause == "timeout":
        raise Unanswered(f"it does not end within {seconds:.0f} s")
    raise Unanswered(f"it ends its process (exit code {ended.code})" if ended else "its process was killed")


def _answer(function: Callable[..., Any], args: tuple[Any, ...], report: Report) -> None:
    report({"value": function(*args)})
