"""What to measure and how long, and how the command line says it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.errors import UserError
from harness.suite.load import assignment
from zoo import architectures
from zoo.registry import load_plugin
from zoo.types import Role

TOKENS = 4096
"""Of a batch whose size is not given."""


@dataclass(frozen=True)
class Plan:
    """What to measure and how long."""

    lengths: tuple[tuple[int, int], ...]
    """(length, batch) of each row."""
    precision: str = "auto"
    role: Role | None = None
    width: int = 256
    depth: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    contexts: tuple[int, ...] = ()
    """Further context lengths to decode behind; a row's own length always is one."""
    reference: str | None = "pre_ln"
    peers: bool = False
    repeats: int = 5
    seconds: float = 1.0
    """Of a turn."""
    threads: int | None = None


def plan(
    *, lengths: str, contexts: str = "", reference: str | None = "pre_ln", options: tuple[str, ...] = (), **given: Any
) -> Plan:
    """A Plan from words: lengths such as `256x8,2048`, contexts such as `128,16384`, options such as `heads=8`.

    Raises:
        UserError: one of them cannot be read, or a plug-in cannot be imported.
    """
    for plugin in given.get("plugins", ()):
        try:
            load_plugin(plugin)
        except (ImportError, FileNotFoundError, SyntaxError, ValueError) as error:
            raise UserError(f"cannot import {plugin}: {error}", key="--plugin") from error
    reference = None if reference == "none" else reference
    if reference is not None:
        try:
            architectures.get(reference)
        except KeyError as error:
            raise UserError(str(error.args[0]), key="--reference") from error
    return Plan(
        lengths=tuple(dict.fromkeys(_shape(word) for word in lengths.split(","))),
        contexts=tuple(_whole(word, "--contexts") for word in contexts.split(",") if word),
        reference=reference,
        options=dict(assignment(option) for option in options),
        **given,
    )


def _shape(word: str) -> tuple[int, int]:
    length, times, batch = word.partition("x")
    steps = _whole(length, "--lengths")
    return steps, _whole(batch, "--lengths") if times else max(1, TOKENS // steps)


def _whole(word: str, key: str) -> int:
    if not word.strip().isdigit() or int(word) < 1:
        raise UserError(f"{word!r} is not a length; write them like 256,2048 or, with a batch, 256x8,2048x2", key=key)
    return int(word)
