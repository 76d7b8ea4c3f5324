"""What is known: architectures, tasks, suites and corpora; and a first file for an architecture of one's own."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader
from jinja2.filters import do_groupby
from rich.console import Console
from rich.table import Table

import tasks
from harness.errors import UserError
from harness.suite import shipped
from tasks import corpora
from zoo import proofs, registry
from zoo.lookup import nearest
from zoo.terms import ROLES, Shape, Unsupported

Row = dict[str, Any]


def _architecture(name: str) -> Row:
    """What it is and can do, paper, source, deviations, and the oracles it was proven against."""
    from zoo.sizing import sketch

    entry = registry.get(name)
    recipe = registry.recipe(name)
    roles, traits = [], None
    for role in ROLES:
        shape = Shape(length=64, vocab=16, outputs=16, target_length=64, width=16 * recipe.width_multiple)
        try:
            model = sketch(name, role, shape, depth=len(recipe.mixers))
        except Unsupported:
            continue
        roles.append(role)
        traits = traits or model.traits
    found = proofs.of(name)
    return {
        "name": name,
        "family": Path(entry.origin).stem,
        "about": entry.about,
        "roles": roles,
        "causal": traits.causal if traits else None,
        "resumable": traits.resumable if traits else None,
        "length": traits.length if traits else None,
        "stochastic": traits.stochastic if traits else None,
        "options": {option.name: option.default for option in entry.options},
        "paper": entry.paper,
        "source": entry.source,
        "oracles": [dataclasses.asdict(proof) for proof in found],
        "error": max((proof.output for proof in found if proof.output is not None), default=None),
        "gradient_error": max((proof.gradient for proof in found if proof.gradient is not None), default=None),
        "deviations": list(entry.deviations),
    }


def markdown() -> str:
    """The page of architectures in the docs, family by family, with every oracle and deviation."""
    environment = Environment(loader=PackageLoader("harness", "."), trim_blocks=True, lstrip_blocks=True)
    environment.filters["error"] = _error
    environment.filters["cell"] = _cell
    environment.filters["traits"] = _traits
    families = do_groupby(environment, rows("architectures"), "family")
    return environment.get_template("zoo.md.j2").render(families=families) + "\n"


def _traits(row: Row) -> str:
    words = [row["causal"], "resumable" if row["resumable"] else "", row["length"] if row["length"] != "any" else ""]
    return ", ".join(word for word in [*words, "stochastic" if row["stochastic"] else ""] if word)


def _proof(proof: Row) -> str:
    return f"{proof['oracle']}: outputs {_error(proof['output'])}, gradients {_error(proof['gradient'])}"


def _error(value: float | None) -> str:
    return "–" if value is None else f"{value:.0e}"


def _task(name: str) -> Row:
    """What it asks, the role it needs, its metric and options."""
    entry = tasks.get(name)
    metric = entry.make().metric
    return {
        "name": name,
        "about": entry.about,
        "role": entry.make.role,
        "metric": metric.name,
        "chance": metric.chance,
        "options": {option.name: option.default for option in entry.options},
    }


def _suite(name: str) -> Row:
    """What it is about, and where it is."""
    path = shipped()[name]
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {"name": name, "about": " ".join(str(data.get("about", "")).split()), "path": str(path)}


def _corpus(name: str) -> Row:
    """Licence, size, the sources it is looked for in, and whether it is here."""
    card = corpora.get(name)
    return {
        "name": card.name,
        "about": card.about,
        "licence": card.licence,
        "bytes": card.size,
        "here": any(not isinstance(source, corpora.Hub) and source.find() for source in card.sources),
        "sources": [source.advice() for source in card.sources],
        "sha256": card.sha256,
    }


KINDS: dict[str, tuple[Callable[[], Iterable[str]], Callable[[str], Row]]] = {
    "architectures": (registry.names, _architecture),
    "tasks": (tasks.names, _task),
    "suites": (shipped, _suite),
    "corpora": (corpora.names, _corpus),
}
"""For each kind of thing, the names that are known and what makes the row of one."""


def rows(kind: str) -> list[Row]:
    """Everything of a kind that is known."""
    names, row = KINDS[kind]
    return [row(name) for name in names()]


_SHOWN = {"name", "about", "roles", "causal", "resumable", "length", "error", "role", "metric", "licence", "here"}


def show(rows: list[Row], console: Console) -> None:
    """Rows as a table of their main columns."""
    table = Table(header_style="bold")
    columns = [key for key in rows[0] if key in _SHOWN] if rows else []
    for key in columns:
        table.add_column(key, no_wrap=key == "name")
    for row in rows:
        table.add_row(*(_error(row[key]) if key == "error" else _cell(row[key]) for key in columns))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == list(ROLES):
        return "all"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


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
    raise UserError(f"nothing is called {name!r}{nearest(name, known)}")


def show_one(row: Row, console: Console) -> None:
    """Everything in a row, a line each."""
    for key, value in row.items():
        if isinstance(value, list) and key in ("deviations", "sources", "oracles"):
            console.print(f"[bold]{key}[/]{'' if value else '      none'}")
            for item in value:
                console.print(f"  - {_proof(item) if key == 'oracles' else item}", highlight=False, markup=False)
            continue
        if key.endswith("error"):
            value = _error(value)
        shown = ", ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else _cell(value)
        console.print(f"[bold]{key:<14}[/] ", end="")
        console.print(shown, highlight=False, markup=False)


_MIXER = '''
"""{title}: a mixer of your own. Replace the equation, keep the contract, then run `zoobench check {name}`.

    h_t = a h_{{t-1}} + (1 - a) x_t,   a = sigmoid(w)
"""

import torch
from torch import nn

from zoo import Mixer, Site, Traits, register


@register("{name}", paper="where the equation comes from")
class {title}(Mixer):
    """An exponential moving average per channel."""

    traits = Traits(causal="strict", bidirectional=False, resumable=False)

    def __init__(self, site: Site, *, half_life: float = 8.0) -> None:
        super().__init__(site)
        self.w = nn.Parameter(torch.linspace(0.0, half_life, site.width))

    def forward(self, x, *, mask=None, state=None):
        log_a, steps = nn.functional.logsigmoid(self.w), torch.arange(x.shape[1], device=x.device)
        lag = (steps[:, None] - steps).clamp(min=0)
        weights = (lag[..., None] * log_a).exp() * (1 - log_a.exp()) * (steps[:, None] >= steps)[..., None]
        return torch.einsum("tsd,bsd->btd", weights, x), None
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
  - recall: {{length: 32, pairs: 4, vocab: 32}}
budget:
  match: {{params: 60k, count: non_embedding, tolerance: 10%}}
  stop: {{tokens: 200k}}
seeds: [0, 1]
train: {{batch_tokens: 1024, lr: 3e-3}}
evaluate: {{test: 500}}
"""


def new(name: str, folder: Path | None = None) -> list[Path]:
    """Write NAME.py, a working mixer, and NAME.yaml, a suite that runs it.

    Raises:
        UserError: the name cannot be one, is taken, or a file is in the way.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"{name!r} cannot be an architecture's name: use lower-case letters, digits and underscores")
    if name in registry.names():
        raise UserError(f"{name!r} is already an architecture; choose another name")
    title = "".join(part.capitalize() for part in name.split("_"))
    written = {}
    for suffix, template in ((".py", _MIXER), (".yaml", _SUITE)):
        path = (folder or Path()) / f"{name}{suffix}"
        if path.exists():
            raise UserError("is in the way; nothing was written", file=path)
        written[path] = inspect.cleandoc(template.format(name=name, title=title)) + "\n"
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
    return list(written)
