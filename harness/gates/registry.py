"""The list of gates: what each is called, what it stops, and when it applies."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from harness.records.record import Gate
from zoo.types import Role

if TYPE_CHECKING:
    from harness.gates.subject import Subject

IN_TIME: tuple[Role, ...] = ("lm", "seq2seq")
"""Roles with an order in time."""
FIRST, LAST = 0, 2


@dataclass(frozen=True)
class GateDefinition:
    """A gate as it is registered."""

    name: str
    reason: str
    """What it stops."""
    check: Callable[[Subject], Gate]
    roles: tuple[Role, ...]
    """Roles that it is for; empty for all."""
    of_matched: bool
    """Whether it is only for runs that are matched in size."""
    when: int

    def applies(self, role: Role, *, matched: bool) -> bool:
        """Whether it is for models of a role, matched in size or not."""
        return (not self.roles or role in self.roles) and (matched or not self.of_matched)


_registered: dict[str, GateDefinition] = {}


def gate(
    reason: str, *, roles: tuple[Role, ...] = (), of_matched: bool = False, when: int = 1
) -> Callable[[Callable[[Subject], Gate]], Callable[[Subject], Gate]]:
    """Register a function as the gate of its name.

    Args:
        reason: what it stops, as a board says it. roles, of_matched: see `GateDefinition`.
        when: `FIRST` for one that must see the model before others touch it, `LAST` for one that touches it itself.
    """

    def register(check: Callable[[Subject], Gate]) -> Callable[[Subject], Gate]:
        name = check.__name__
        _registered[name] = GateDefinition(name, reason, check, roles, of_matched, when)
        return check

    return register


def gates() -> dict[str, GateDefinition]:
    """Every gate by name, in the order in which they are checked. Loads torch."""
    _import_all()
    return dict(sorted(_registered.items(), key=lambda item: item[1].when))


@cache
def _import_all() -> None:
    import harness.gates as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
