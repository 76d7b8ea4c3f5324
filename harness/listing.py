"""What is known: architectures, tasks, suites and corpora; and a first file for an architecture of one's own."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader
from jinja2.filters import do_groupby
from rich.console import Console
from rich.table import Table

import tasks
from harness.errors import UserError
from harness.lm_eval import questions
from harness.records.record import Override
from harness.suite.load import shipped
from harness.training import overrides
from harness.training.overrides import overrides_of
from tasks import corpora
from zoo import architectures, proofs
from zoo.registry import Entry, nearest
from zoo.types import ROLES, Shape, Unsupported

Row = dict[str, Any]


def _architecture(name: str) -> Row:
    """What it is and can do, paper, source, deviations, and the oracles it was proven against."""
    from zoo.size import sketch

    entry = architectures.get(name)
    recipe = architectures.recipe(name)
    roles, traits, own = [], None, list[Row]()
    for role in ROLES:
        shape = Shape(length=64, vocab=16, outputs=16, target_length=64, width=16 * recipe.width_multiple)
        try:
            model = sketch(name, role, shape, depth=len(recipe.mixers))
        except Unsupported:
            continue
        roles.append(role)
        traits = traits or model.traits
        own = own or [override.to_dict() for override in overrides_of(model)]
    found = proofs.of(name)
    return {
        "name": name,
        "family": entry.family,
        "about": entry.about,
        "roles": roles,
        "causal": traits.causal if traits else None,
        "resumable": traits.resumable if traits else None,
        "length": traits.length if traits else None,
        "stochastic": traits.stochastic if traits else None,
        "options": {option.name: option.default for option in entry.options},
        "defaults": own,
        "paper": entry.paper,
        "source": entry.source,
        "oracles": [dataclasses.asdict(proof) for proof in found],
        "error": max((proof.output for proof in found if proof.output is not None), default=None),
        "gradient_error": max((proof.gradient for proof in found if proof.gradient is not None), default=None),
        "deviations": list(entry.deviations),
    }


def markdown(kind: str = "architectures") -> str:
    """A page of the docs, family by family: of architectures, with every oracle and deviation, or of tasks."""
    environment = Environment(loader=PackageLoader("harness", "."), trim_blocks=True, lstrip_blocks=True)
    environment.filters["error"] = _error
    environment.filters["cell"] = _cell
    environment.filters["traits"] = _traits
    environment.filters["pairs"] = _pairs
    families = do_groupby(environment, rows(kind), "family")
    return environment.get_template(PAGES[kind]).render(families=families) + "\n"


PAGES = {"architectures": "zoo.md.j2", "tasks": "tasks.md.j2"}
"""The kinds of things that have a page in the docs, and the page's template."""


def _traits(row: Row) -> str:
    words = [row["causal"], "resumable" if row["resumable"] else "", row["length"] if row["length"] != "any" else ""]
    return ", ".join(word for word in [*words, "stochastic" if row["stochastic"] else ""] if word)


def _proof(proof: Row) -> str:
    return f"{proof['oracle']}: outputs {_error(proof['output'])}, gradients {_error(proof['gradient'])}"


def _error(value: float | None) -> str:
    return "–" if value is None else f"{value:.0e}"


def _task(name: str) -> Row:
    """What it asks, the role it needs, its metric, options and difficulties, paper, source and deviations."""
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
        "difficulties": {key: _plain(value) for key, value in entry.make.difficulties.items()},
        "paper": entry.paper,
        "source": entry.source,
        "deviations": list(entry.deviations),
    }


def _metric(entry: Entry) -> tasks.Metric | None:
    """Under the default options, or those of a difficulty; None for a task that cannot be built under any of them."""
    for options in ({}, *(difficulty.options for difficulty in entry.make.difficulties.values())):
        try:
            return entry.make(**options).metric
        except (TypeError, ValueError):
            continue
    return None


def _plain(difficulty: tasks.Difficulty) -> Row:
    found = {field.name: getattr(difficulty, field.name) for field in dataclasses.fields(difficulty)}
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in found.items()}


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


def _question(name: str) -> Row:
    return next(row for row in questions.known() if row["name"] == name)


def fetch(name: str) -> Row:
    """Make sure that a corpus is on this machine, downloading it where it is not; its row.

    Raises:
        UserError: it is unknown, or cannot be had, or is not what its card says.
    """
    try:
        path = corpora.fetch(name)
    except ValueError as error:  # DataError is one
        raise UserError(str(error)) from error
    return {**_corpus(name), "here": True, "path": str(path)}


KINDS: dict[str, tuple[Callable[[], Iterable[str]], Callable[[str], Row]]] = {
    "architectures": (architectures.names, _architecture),
    "tasks": (tasks.names, _task),
    "suites": (shipped, _suite),
    "corpora": (corpora.names, _corpus),
    "questions": (lambda: [row["name"] for row in questions.known()], _question),
}
"""For each kind of thing, the names that are known and what makes the row of one."""


def rows(kind: str) -> list[Row]:
    """Everything of a kind that is known."""
    names, row = KINDS[kind]
    return [row(name) for name in names()]


_SHOWN = {
    "architectures": ("name", "about", "roles", "causal", "resumable", "length", "error"),
    "tasks": ("name", "family", "about", "role", "metric", "chance"),
    "suites": ("name", "about"),
    "corpora": ("name", "about", "licence", "here"),
    "questions": ("name", "about", "metrics", "chance", "documents", "file"),
}
"""The columns of each kind's table."""


def show(kind: str, rows: list[Row], console: Console) -> None:
    """Rows as a table of their main columns."""
    table = Table(header_style="bold")
    columns = _SHOWN[kind]
    for key in columns:
        table.add_column(key, no_wrap=key == "name", overflow="fold")
    for row in rows:
        table.add_row(*(_error(row[key]) if key == "error" else _cell(row[key]) for key in columns))
    console.print(table)
    if kind == "corpora":
        console.print(f"fetched corpora are kept in {corpora.home()}", highlight=False, markup=False, soft_wrap=True)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == list(ROLES):
        return "all"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, (list, dict)) else str(value)


def _pairs(value: dict[str, Any]) -> str:
    """`length=64, pairs=8`."""
    return ", ".join(f"{k}={v}" for k, v in value.items())


def find(name: str) -> Row:
    """The row called `name`, of whatever kind.

    Raises:
        UserError: nothing is called that.
    """
    known: list[str] = []
    for kind, (names, row) in KINDS.items():
        if name in (own := list(names())):
            return {"kind": kind.removesuffix("s").replace("corpora", "corpus"), **row(name)}
        known += own
    with suppress(KeyError):  # a name that a task had before
        return {"kind": "task", **_task(name)}
    raise UserError(f"nothing is called {name!r}{nearest(name, known)}")


def show_one(row: Row, console: Console) -> None:
    """Everything in a row, a line each."""
    for key, value in row.items():
        if isinstance(value, list) and key in _BULLETS:
            console.print(f"[bold]{key}[/]{'' if value else '      none'}")
            for item in value:
                console.print(f"  - {_BULLETS[key](item)}", highlight=False, markup=False)
            continue
        if key == "difficulties":
            console.print(f"[bold]{key}[/]{'' if value else ' none'}")
            for name, setting in value.items():
                console.print(f"  - {name}: {_setting(setting)}", highlight=False, markup=False)
            continue
        if key.endswith("error"):
            value = _error(value)
        shown = _pairs(value) if isinstance(value, dict) else _cell(value)
        console.print(f"[bold]{key:<14}[/] ", end="")
        console.print(shown, highlight=False, markup=False)


_BULLETS: dict[str, Callable[[Any], str]] = {
    "defaults": lambda row: overrides.describe(Override.from_dict(row)),
    "oracles": _proof,
    "deviations": str,
    "sources": str,
}
"""Keys of a row whose entries have a line each, and what writes one."""


def _setting(difficulty: Row) -> str:
    """The options, budget, size and the rest of a difficulty."""
    parts = {key: _pairs(value) if isinstance(value, dict) else value for key, value in difficulty.items()}
    return "; ".join(f"{key} {part}" for key, part in parts.items() if part)


_MIXER = '''
"""{title}: a mixer of your own. Replace the equation, keep the contract, then run `zoobench check {name}`.

    h_t = a h_{{t-1}} + (1 - a) x_t,   a = sigmoid(w)
"""

import torch
from torch import nn

from zoo import Mixer, LayerContext, Traits, register


@register(
    "{name}",
    paper="where the equation comes from",
    source="the official code, if there is any",
    deviations=("where this departs from either",),
    norm="layer",  # a field of zoo.Recipe: what stands around the mixer; by default Pre-LN blocks with an MLP
)
class {title}(Mixer):
    """An exponential moving average per channel."""

    traits = Traits(causal="strict", bidirectional=False, resumable=False)

    def __init__(self, context: LayerContext, *, half_life: float = 8.0) -> None:
        super().__init__(context)
        self.w = nn.Parameter(torch.linspace(0.0, half_life, context.width))

    def forward(self, x, *, mask=None, state=None):
        log_a, steps = nn.functional.logsigmoid(self.w), torch.arange(x.shape[1], device=x.device)
        lag = (steps[:, None] - steps).clamp(min=0)
        weights = (lag[..., None] * log_a).exp() * (1 - log_a.exp()) * (steps[:, None] >= steps)[..., None]
        return torch.einsum("tsd,bsd->btd", weights, x), None
'''

_TASK = '''
"""{title}: a task of your own. Replace the question, keep the contract, then run `zoobench check {name}`."""

import numpy as np

from tasks import Baseline, Difficulty, Metric, Task, register
from tasks.base import fingerprint, whole
from tasks.draws import Draws
from tasks.splits import drawn
from zoo.types import Batch, Shape


@register("{name}", paper="where the question comes from")
class {title}(Task):
    """Name the token that stood first."""

    role = "classify"
    difficulties = {{
        "smoke": Difficulty({{"length": 16}}, stop={{"tokens": 200_000}}, params=50_000, train={{"lr": 3e-3}}),
        "small": Difficulty({{"length": 64}}, stop={{"tokens": 2_000_000}}, params=100_000),
    }}

    def __init__(self, *, length: int = 64, vocab: int = 8) -> None:
        self.length, self.vocab = whole("{name}", "length", length), whole("{name}", "vocab", vocab, 2)
        self.metric = Metric("accuracy", higher_is_better=True, chance=1 / vocab)

    @property
    def shape(self):
        return Shape(length=self.length, vocab=self.vocab, outputs=self.vocab)

    @property
    def fingerprint(self):
        return fingerprint("{name}", 1, length=self.length, vocab=self.vocab)

    def count(self, split):
        return None if split == "train" else 1000

    def examples(self, split, ids, seed):
        def tokens(ids, attempt):
            draws = Draws("{name}", split, seed if split == "train" else 0, attempt)
            return draws.integers(ids, self.length, 0, self.vocab)

        inputs = drawn(split, ids, tokens, what="{name}")  # so that no example is in two splits
        return Batch(inputs=inputs, targets=inputs[:, 0])

    def baselines(self, limit=None):
        test = self.examples("test", self.evaluation_ids("test", limit), 0)
        return [Baseline("last", float(np.mean(test.targets == test.inputs[:, -1])), "the token that stands last")]
'''

_SUITE = """
suite: {name}
about: {title} beside two it should be measured against.
plugins: [{name}.py]
architectures:
  - {name}
  - pre_ln
  - lstm
tasks:
  - mqar: {{length: 32, pairs: 4, vocab: 32}}
budget:
  match: {{params: 60k, count: non_embedding, tolerance: 10%}}
  stop: {{tokens: 200k}}
seeds: [0, 1]
train: {{batch_tokens: 1024, lr: 3e-3}}
evaluate: {{test: 500}}
"""

_TASK_SUITE = """
suite: {name}
about: Two architectures on {title}.
plugins: [{name}.py]
architectures:
  - pre_ln
  - lstm
tasks:
  - {name}: {{length: 16}}
budget:
  match: {{params: 50k, count: non_embedding, tolerance: 10%}}
  stop: {{tokens: 200k}}
seeds: [0, 1]
model: {{depth: 2}}
train: {{batch_tokens: 1024, lr: 3e-3}}
evaluate: {{test: 500}}
"""


def new(name: str, folder: Path | None = None, *, task: bool = False) -> list[Path]:
    """Write NAME.py, a working mixer or task, and NAME.yaml, a suite that runs it.

    Raises:
        UserError: the name cannot be one, is taken, or a file is in the way.
    """
    what = "a task" if task else "an architecture"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"{name!r} cannot be {what}'s name: use lower-case letters, digits and underscores")
    for taken, kind in ((architectures.names(), "an architecture"), (tasks.names(), "a task")):
        if name in taken:
            raise UserError(f"{name!r} is already {kind}; choose another name")
    title = "".join(part.capitalize() for part in name.split("_"))
    templates = ((".py", _TASK), (".yaml", _TASK_SUITE)) if task else ((".py", _MIXER), (".yaml", _SUITE))
    written = {}
    for suffix, template in templates:
        path = (folder or Path()) / f"{name}{suffix}"
        if path.exists():
            raise UserError("is in the way; nothing was written", file=path)
        written[path] = inspect.cleandoc(template.format(name=name, title=title)) + "\n"
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
    return list(written)
