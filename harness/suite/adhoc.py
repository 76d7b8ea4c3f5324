"""A suite of a few words: `zoobench run --task text --arch pre_ln,rwkv4 --seeds 3`."""

import re
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from typing import Any

from harness.errors import UserError
from harness.suite.load import find_suite
from harness.suite.loaded import COMMON_TYPES
from harness.suite.yaml_source import Path_, Source, read, read_value
from zoo import architectures as registry

BASE = "quick"
"""The suite that decides what is not said: budget, training, and the options of the tasks that it has."""
OPTIONS: dict[Path_, str] = {
    ("suite",): "--name",
    ("tasks",): "--task",
    ("architectures",): "--arch",
    ("seeds",): "--seeds",
    ("budget", "match"): "--params",
    ("budget", "stop"): "--tokens",
}
"""Where the keys of such a suite come from."""
LONGEST = 60
"""Characters of a suite's name; what is longer ends in a hash."""


def source(
    tasks: Iterable[str],
    architectures: Iterable[str],
    *,
    seeds: int = 3,
    params: str | None = None,
    tokens: str | None = None,
    name: str | None = None,
) -> Source:
    """The suite of these tasks and architectures, as if it stood in a file; an error in it names the option.

    Args:
        tasks, architectures: entries as in a suite, several in one text with commas between them:
            `pre_ln,s4d: {d_state: 32}`. seeds: how many. params, tokens: what is held equal, `400k`.

    Raises:
        UserError: a text is no list of entries.
    """
    played, rows = _entries("--task", tasks), _entries("--arch", architectures)
    base, own = read(find_suite(BASE)).data, _options_of(map(_name, rows))
    known, budget = {_name(entry): entry for entry in base["tasks"]}, dict(base["budget"])
    said = [key for key, value in (("match", params), ("stop", tokens)) if value]
    budget |= {"match": {**budget["match"], "params": params}} if params else {}
    budget |= {"stop": {"tokens": tokens}} if tokens else {}
    chosen = [known.get(entry, entry) if isinstance(entry, str) else entry for entry in played]
    data = {
        **base,
        "suite": name or _short_name([*map(_name, [*played, *rows])]),
        "about": f"Made on the command line; what it does not say is as in {BASE}.",
        "architectures": rows,
        "tasks": [_adapted(entry, said, own) for entry in chosen],
        "budget": budget,
        "reference": None,
        "seeds": list(range(seeds)),
        "model": _only(own, base["model"]),
    }
    return Source(data, {path: (option, 0) for path, option in OPTIONS.items()})


def _entries(option: str, texts: Iterable[str]) -> list[Any]:
    """The entries in texts such as `pre_ln,s4d: {d_state: 32}`."""
    text = ",".join(texts)
    try:
        return [entry for entry in read_value(f"[{text}]", option) if entry is not None]
    except UserError:
        raise UserError(f"{text!r} is not a list of names such as a,b or 'a: {{option: 1}},b'", file=option) from None


def _name(entry: Any) -> str:
    return str(next(iter(entry), "")) if isinstance(entry, dict) else str(entry)


def _options_of(names: Iterable[str]) -> set[str]:
    """The options that one of these architectures has; unknown ones are reported when the suite is loaded."""
    known = set(COMMON_TYPES)
    for name in names:
        with suppress(KeyError):
            known |= {option.name for option in registry.get(name).options}
    return known


def _only(known: set[str], model: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in model.items() if key in known}


def _adapted(entry: Any, said: list[str], known: set[str]) -> Any:
    """A task's entry without its own settings for what the command line says, and without options that no row has."""
    if not isinstance(entry, dict):
        return entry
    kept = {key: value for key, value in entry.items() if key not in said}
    return {**kept, "model": _only(known, kept["model"])} if "model" in kept else kept


def _short_name(names: list[str]) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", "-".join(["ad-hoc", *names]))
    return (
        name if len(name) <= LONGEST else f"{name[: LONGEST - 7]}-{blake2b(name.encode(), digest_size=3).hexdigest()}"
    )
