"""What to measure and how long, and how the command line says it."""

from dataclasses import dataclass, field
from typing import Any

from harness.errors import UserError
from zoo import architectures
from zoo.types import Role

TOKENS = 4096
"""Of a batch whose size is not given."""


@dataclass(frozen=True)
class Settings:
    """What to measure and how long."""

    lengths: tuple[tuple[int, int], ...]
    """(length, batch) of each row."""
    precision: str = "auto"
    role: Role | None = None
    width: int = 256
    depth: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    """Of every architecture."""
    plugins: tuple[str, ...] = ()
    contexts: tuple[int, ...] = ()
    """Further context lengths to decode behind; a row's own length always is one."""
    reference: str | None = "pre_ln"
    peers: bool = False
    repeats: int = 5
    """Rounds, over which medians are taken."""
    seconds: float = 1.0
    """Of training in a round."""
    threads: int | None = None


def parse_settings(*, lengths: str, contexts: str = "", reference: str | None = "pre_ln", **settings: Any) -> Settings:
    """Settings with lengths in words such as `256x8,2048`, and contexts such as `128,16384`.

    Raises:
        UserError: one of them cannot be read, or the reference is unknown.
    """
    reference = None if reference == "none" else reference
    if reference is not None:
        try:
            architectures.get(reference)
        except KeyError as error:
            raise UserError(str(error.args[0]), key="--reference") from error
    return Settings(
        lengths=tuple(dict.fromkeys(_parse_length(word) for word in lengths.split(","))),
        contexts=tuple(_parse_whole(word, "--contexts") for word in contexts.split(",") if word),
        reference=reference,
        **settings,
    )


def _parse_length(word: str) -> tuple[int, int]:
    length, times, batch = word.partition("x")
    steps = _parse_whole(length, "--lengths")
    return steps, _parse_whole(batch, "--lengths") if times else max(1, TOKENS // steps)


def _parse_whole(word: str, key: str) -> int:
    if not word.strip().isdigit() or int(word) < 1:
        raise UserError(f"{word!r} is not a length; write them like 256,2048 or, with a batch, 256x8,2048x2", key=key)
    return int(word)
