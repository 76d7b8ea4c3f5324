"""Everything known by name, and how it is shown: architectures, tasks, suites, corpora, questions of lm-eval."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

import tasks
from harness.catalog import suites
from harness.errors import UserError
from harness.lm_eval import questions
from harness.records.parts import plain
from harness.records.record import Override
from harness.suite.load import shipped
from harness.training.overrides import describe, overrides_of
from tasks import corpora
from zoo import architectures, cache, proofs
from zoo.registry import Entry, nearest

Row = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One kind of known things."""

    singular: str
    names: Callable[[], Iterable[str]]
    describe: Callable[[str], Row]
    columns: tuple[str, ...]
    """The keys of a row that `zoobench ls` shows."""


def _architecture(name: str) -> Row:
    """What it is and can do; of a built-in architecture, as it was found out last under the same sources."""
    if name in architectures.plugins():
        return _examined(name)
    with cache.kept() as known:
        if (key := f"architecture {name}") not in known:
            known[key] = _examined(name)
        row: Row = known[key]
        return row


def _examined(name: str) -> Row:
    """What it is and can do, paper, source, deviations, and the oracles it was proven against, as plain JSON."""
    from zoo.size import sketch_roles

    entry, found, models = architectures.get(name), proofs.of(name), sketch_roles(name)
    traits = next((model.traits for model in models.values()), None)
    overrides = next((own for model in models.values() if (own := overrides_of(model))), [])
    row = {
        "name": name,
        "family": entry.family,
        "year": entry.year,
        "about": entry.about,
        "roles": list(models),
        **{trait: getattr(traits, trait, None) for trait in ("causal", "resumable", "length", "stochastic")},
        "options": {option.name: option.default for option in entry.options},
        "defaults": [override.to_dict() for override in overrides],
        "paper": entry.paper,
        "source": entry.source,
        "oracles": [dataclasses.asdict(proof) for proof in found],
        "error": max((proof.output for proof in found if proof.output is not None), default=None),
        "gradient_error": max((proof.gradient for proof in found if proof.gradient is not None), default=None),
        "deviations": list(entry.deviations),
    }
    return dict(plain(row))


def _task(name: str) -> Row:
    """What it is about, the role it needs, its metric, options and difficulties, paper, source and deviations."""
    entry = tasks.get(name)
    metric = _metric(entry)
    return {
        "name": entry.name,
        "family": _family(entry.make.__module__),
        "about": entry.about,
        "role": entry.make.role,
        "metric": metric and metric.name,
        "unit": metric and metric.unit,
        "direction": metric and ("higher" if metric.higher_is_better else "lower"),
        "chance": metric and metric.chance,
        "options": {option.name: option.default for option in entry.options},
        "difficulties": {key: dataclasses.asdict(value) for key, value in entry.make.difficulties.items()},
        "paper": entry.paper,
        "source": entry.source,
        "deviations": list(entry.deviations),
    }


def _metric(entry: Entry) -> tasks.Metric | None:
    """Under the default options, or those of a difficulty; None for a task that cannot be built under any of them."""
    for options in ({}, *(difficulty.options for difficulty in entry.make.difficulties.values())):
        with suppress(TypeError, ValueError):
            metric: tasks.Metric = entry.make(**options).metric
            return metric
    return None


def _family(module: str) -> str:
    """The folder of a built-in task; the module or file of another."""
    parts = module.split(".")
    return parts[1] if parts[0] == "tasks" and len(parts) > 2 else parts[-1].removeprefix("zoobench_plugin_")


def _suite(name: str) -> Row:
    """What it is about, and where it is."""
    path = shipped()[name]
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {"name": name, "about": " ".join(str(data.get("about", "")).split()), "path": str(path)}


def _corpus(name: str) -> Row:
    """Licence, size, the sources it is looked for in, and whether it is here."""
    card = corpora.get(name)
    path = next((path for path in (source.find() for source in card.sources) if path is not None), None)
    return {
        "name": card.name,
        "about": card.about,
        "licence": card.licence,
        "bytes": card.size,
        "here": path is not None,
        "path": None if path is None else str(path),
        "sources": [source.advice() for source in card.sources],
        "sha256": card.sha256,
    }


def _questions() -> dict[str, Row]:
    return {row["name"]: row for row in questions.known()}


ARCHITECTURE_COLUMNS = ("name", "year", "about", "roles", "causal", "resumable", "length", "error")
QUESTION_COLUMNS = ("name", "about", "metrics", "chance", "documents", "file")
KINDS = {
    "architectures": Kind("architecture", architectures.names, _architecture, ARCHITECTURE_COLUMNS),
    "tasks": Kind("task", tasks.names, _task, ("name", "family", "about", "role", "metric", "chance")),
    "suites": Kind("suite", shipped, _suite, ("name", "about")),
    "corpora": Kind("corpus", corpora.names, _corpus, ("name", "about", "licence", "here")),
    "questions": Kind("question", _questions, lambda name: _questions()[name], QUESTION_COLUMNS),
}


def rows(kind: str) -> list[Row]:
    """Everything of a kind that is known."""
    return [KINDS[kind].describe(name) for name in KINDS[kind].names()]


def find(name: str) -> Row:
    """The row called `name`, of whatever kind; of a suite by name or path, the whole suite.

    Raises:
        UserError: nothing is called that.
    """
    if name in shipped() or name.endswith((".yaml", ".yml")):
        return {"kind": "suite", **suites.describe(name)}
    known: list[str] = []
    for kind in KINDS.values():
        if name in (names := list(kind.names())):
            return {"kind": kind.singular, **kind.describe(name)}
        known += names
    with suppress(KeyError):  # a name that a task had before
        return {"kind": "task", **_task(name)}
    raise UserError(f"nothing is called {name!r}{nearest(name, known)}")


def fetch(name: str) -> Row:
    """The row of a corpus, downloaded where it was not here yet.

    Raises:
        UserError: it is unknown, or cannot be had, or is not what its card says.
    """
    try:
        path = corpora.fetch(name)
    except ValueError as error:  # DataError is one
        raise UserError(str(error)) from error
    return {**_corpus(name), "here": True, "path": str(path)}


def format_value(value: Any) -> str:
    """A value of a row, as a cell of a table."""
    from zoo.types import ROLES

    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == list(ROLES):
        return "all"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, (list, dict)) else str(value)


def format_error(value: float | None) -> str:
    """A relative error: `3e-07`."""
    return "–" if value is None else f"{value:.0e}"


def format_options(value: Mapping[str, Any]) -> str:
    """`length=64, pairs=8`."""
    return ", ".join(f"{key}={option}" for key, option in value.items())


def show_table(kind: str, rows: list[dict[str, Any]], console: Console) -> None:
    """Rows of the catalog as a table of their main columns."""
    table, columns = Table(header_style="bold"), KINDS[kind].columns
    for key in columns:
        table.add_column(key, no_wrap=key == "name", overflow="fold")
    for row in rows:
        table.add_row(*((format_error if key == "error" else format_value)(row[key]) for key in columns))
    console.print(table)
    if kind == "corpora":
        console.print(f"fetched corpora are kept in {corpora.home()}", highlight=False, markup=False, soft_wrap=True)


def show_row(row: dict[str, Any], console: Console) -> None:
    """Everything in a row of the catalog, a line each; lists of sentences item by item."""
    for key, value in row.items():
        if key in _ITEMS and value:
            console.print(f"[bold]{key}[/]")
            for item in value.items() if isinstance(value, dict) else value:
                console.print(f"  - {_ITEMS[key](item)}", highlight=False, markup=False)
        else:
            console.print(f"[bold]{key:<14}[/] ", end="")
            console.print("none" if key in _ITEMS else _format(key, value), highlight=False, markup=False)


def _format(key: str, value: Any) -> str:
    if not isinstance(value, dict):
        return format_error(value) if key.endswith("error") else format_value(value)
    return (suites.format_settings if key in suites.SETTINGS else format_options)(value) if value else "–"


def _override(override: dict[str, Any]) -> str:
    return describe(Override.from_dict(override))


def _proof(proof: dict[str, Any]) -> str:
    outputs, gradients = format_error(proof["output"]), format_error(proof["gradient"])
    return f"{proof['oracle']}: outputs {outputs}, gradients {gradients}"


def _difficulty(named: tuple[str, dict[str, Any]]) -> str:
    """`smoke: options length=32; stop tokens=200000; params 33000`."""
    name, settings = named
    parts = {key: format_options(value) if isinstance(value, dict) else value for key, value in settings.items()}
    return f"{name}: " + "; ".join(f"{key} {part}" for key, part in parts.items() if part)


_ITEMS: dict[str, Callable[[Any], str]] = {
    "defaults": _override,
    "oracles": _proof,
    "difficulties": _difficulty,
    "deviations": str,
    "sources": str,
    "architectures": suites.format_entry,
    "tasks": suites.format_entry,
    "tracks": suites.format_track,
}
"""How an item of each of these keys is written."""
