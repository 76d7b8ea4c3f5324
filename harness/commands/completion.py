"""Names that a shell completes: suites, architectures, tasks, corpora and runs. Nothing here loads torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

Names: TypeAlias = "Callable[[str, Path], Iterable[str]]"
"""From what was typed so far, and the folder of results, to what it could become."""


def attach(verb: str, command: click.Command) -> None:
    """Have a shell complete the parameters of a command that `COMPLETED` knows, by their names."""
    for parameter in command.params:
        names = COMPLETED.get(f"{verb} {parameter.name}") or COMPLETED.get(str(parameter.name))
        if names is not None:
            vars(parameter)["shell_complete"] = partial(_complete, names)


def _complete(names: Names, context: click.Context, incomplete: str) -> list[CompletionItem]:
    """What the last of the names with commas between them can become; a path, where nothing fits."""
    from click.shell_completion import CompletionItem

    from harness.errors import UserError
    from harness.records.store import default_root

    head, comma, last = incomplete.rpartition(",")
    found: list[Any] = []
    with suppress(UserError, OSError):  # a record that cannot be read
        known = names(last, context.params.get("root") or default_root())
        found = [CompletionItem(f"{head}{comma}{name}") for name in sorted({*known}) if name.startswith(last)]
    return found or [CompletionItem(incomplete, type="file")]


def suites(incomplete: str, root: Path) -> Iterable[str]:
    """Those that ship, and those made on the command line."""
    from harness.suite.load import shipped

    return [*shipped(), *(path.parent.name for path in root.glob("*/suite.yaml"))]


def architectures(incomplete: str, root: Path) -> Iterable[str]:
    """Every one that is registered."""
    from zoo.architectures import names

    return names()


def tasks(incomplete: str, root: Path) -> Iterable[str]:
    """Every one that is registered."""
    from tasks import names

    return names()


def corpora(incomplete: str, root: Path) -> Iterable[str]:
    """Every one that has a card."""
    from tasks.corpora import names

    return names()


def anything(incomplete: str, root: Path) -> Iterable[str]:
    """What `show` knows, but for questions."""
    return [name for names in (architectures, tasks, suites, corpora) for name in names(incomplete, root)]


def checked(incomplete: str, root: Path) -> Iterable[str]:
    """What keeps a contract."""
    return [*architectures(incomplete, root), *tasks(incomplete, root)]


def runs(incomplete: str, root: Path) -> Iterable[str]:
    """Suites with results; after a slash, the next label of their runs: `quick/pre_ln`, `quick/pre_ln/text`."""
    from harness.records.find import labels
    from harness.records.store import Store

    suite, slash, rest = incomplete.partition("/")
    if not slash:
        return [path.name for path in root.glob("*/")]
    depth, finals = rest.count("/") + 1, [r for r in Store(suite, root).records() if r.spec.kind == "final"]
    return ["/".join([suite, *labels(record)[:depth]]) for record in finals]


COMPLETED: dict[str, Names] = {
    "suite": suites,
    "suites": suites,
    "reference": runs,
    "first": architectures,
    "second": architectures,
    "architectures": architectures,
    "run tasks": tasks,
    "bench names": architectures,
    "bench reference": architectures,
    "check names": checked,
    "draw names": architectures,
    "fetch names": corpora,
    "show name": anything,
}
"""What completes a parameter, by its name, or by verb and name."""
