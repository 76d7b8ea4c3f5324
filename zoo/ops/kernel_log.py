"""Which code computes each op: what a record's `provenance.kernels` says ran."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_open: list[dict[str, str]] = []


@contextmanager
def record_kernels(log: dict[str, str] | None = None) -> Iterator[dict[str, str]]:
    """While this is open, every op that runs puts its name and form into the dict: several forms of one op, in order,
    separated by semicolons. Given a `log`, it is continued.

    The list is one for the whole process, as autograd runs a GPU's backward pass on threads of its own.
    """
    log = {} if log is None else log
    _open.append(log)
    try:
        yield log
    finally:
        _open[:] = [other for other in _open if other is not log]


def log_kernel(op: str, form: str) -> None:
    """Note that `op` is computed by `form`."""
    for log in _open:
        before = log.get(op)
        if before is None:
            log[op] = form
        elif form != before and form not in before.split("; "):
            log[op] = f"{before}; {form}"


def logged(op: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have a function that computes `op` by torch, its only form, note that when it is called."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            log_kernel(op, "torch")
            return function(*args, **kwargs)

        return call

    return decorate
