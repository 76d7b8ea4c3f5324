"""What would run: every cell's solved size, FLOPs, tokens and time, before anything runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from harness import device as machine
from harness import external
from harness.budget import StopRule
from harness.build import build_model, examples_of, resolve_size, step_flops
from harness.errors import UserError
from harness.execute import local
from harness.source import Path_
from harness.spec import Cell, RunSpec, build_task, expand
from harness.suite import Loaded
from harness.units import clock, short
from zoo import size as sizing
from zoo.types import Unsupported

Sizes = dict[Cell, "sizing.Size | str"]


@dataclass(frozen=True)
class Planned:
    """One architecture on one task, in one track: what each of its runs would be."""

    architecture: str
    task: str
    track: str
    runs: int
    trials: int
    size: sizing.Size | None
    reason: str = ""
    tokens: float = 0.0
    steps: float = 0.0
    flops: float = 0.0
    seconds: float = 0.0
    """Training time of one run, from measured steps."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def solve(specs: list[RunSpec], loaded: Loaded) -> Sizes:
    """The size of every cell, or the reason why it cannot be.

    Raises:
        UserError: an option or size is wrong, at the line of its architecture.
    """
    sizes: Sizes = {}
    for spec in specs:
        if spec.cell in sizes:
            continue
        task = build_task(spec)
        try:
            if spec.external:
                sizes[spec.cell] = external.size(external.open_for(spec, task), task)
            else:
                sizes[spec.cell] = resolve_size(spec, task)
        except Unsupported as error:
            sizes[spec.cell] = str(error)
        except UserError as error:
            raise loaded.error(error.message, _culprit(spec, loaded, "")) from None
        except (ValueError, TypeError) as error:
            said = str(error).removeprefix(f"{spec.architecture_label}: ")
            message = f"{spec.architecture_label} on {spec.task_label}: {said}"
            raise loaded.error(message, _culprit(spec, loaded, str(error))) from None
    return sizes


def _culprit(spec: RunSpec, loaded: Loaded, message: str) -> Path_:
    """Where in the suite the option stands that a message names, or else the architecture."""
    suite = loaded.suite
    arch = next(i for i, choice in enumerate(suite.architectures) if choice.label == spec.architecture_label)
    task = next(question for question in suite.tasks if question.label == spec.task_label)
    return loaded.culprit(arch, task, message, spec.track)


def plan(loaded: Loaded) -> list[Planned]:
    """Every cell of the suite, with a few training steps of each measured on this machine."""
    specs, tries = expand(loaded), loaded.suite.tuning.effort if loaded.suite.tuning else 0
    sizes = solve(specs, loaded)
    cells = []
    torch.set_num_threads(1)
    for spec in {spec.cell: spec for spec in specs}.values():
        runs = sum(other.cell == spec.cell for other in specs)
        size = sizes[spec.cell]
        if isinstance(size, str):
            cells.append(Planned(*spec.cell, runs, 0, None, reason=size))
        elif spec.external:
            cells.append(Planned(*spec.cell, runs, 0, size))
        else:
            cells.append(Planned(*spec.cell, runs, tries, size, **_measure(spec, size)))
    return cells


def _measure(spec: RunSpec, size: sizing.Size) -> dict[str, Any]:
    task, device = build_task(spec), machine.pick()
    examples = examples_of(spec, task)
    batch = task.batch("train", 0, spec.seed, size=examples).tensors(device)
    model = build_model(spec, task, size).to(device)
    rule = StopRule.of(spec.stop)
    flops = step_flops(spec, task, model)
    with machine.autocast(device, machine.resolve_precision(spec.train["precision"], device)):
        seconds = min(_timed(lambda: task.loss(model(batch), batch).backward()) for _ in range(4))
    cost = {"tokens": examples * task.train_length, "steps": 1, "flops": flops, "seconds": seconds}
    steps = max(1, int(rule.limit / cost[rule.meter]))
    return {meter: steps * value for meter, value in cost.items()}


def _timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def estimate(cells: list[Planned], loaded: Loaded) -> float:
    """Seconds of wall time for the whole suite with one worker per core."""
    fraction = loaded.suite.tuning.budget if loaded.suite.tuning else 0.0
    return sum(cell.seconds * (cell.runs + cell.trials * fraction) for cell in cells) / local.default_workers()


def show(cells: list[Planned], loaded: Loaded, console: Console) -> None:
    """The plan as a table."""
    table = Table(title=f"plan of {loaded.suite.suite}", title_justify="left", header_style="bold")
    names = ["task", "track"] if loaded.suite.tracks else ["task"]
    left = [*names, "architecture"]
    for name in (*left, "runs", "width", "depth", "params", "off", "tokens", "FLOPs", "time a run"):
        table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    for cell in cells:
        where = [getattr(cell, name) for name in left]
        if cell.size is None:
            table.add_row(*where, "–", *["–"] * 3, "", "", "", "unsupported", style="dim")
            continue
        off = "" if cell.size.mismatch is None else f"{cell.size.mismatch:+.1%}"
        runs = f"{cell.trials}+{cell.runs}" if cell.trials else str(cell.runs)
        sizes = (str(cell.size.width), str(cell.size.depth), short(cell.size.params_non_embedding), off)
        table.add_row(*where, runs, *sizes, short(cell.tokens), short(cell.flops), clock(cell.seconds))
    console.print(table)
    for cell in cells:
        if cell.size is None:
            name = " · ".join(filter(None, (cell.architecture, cell.task, cell.track)))
            console.print(f"unsupported: {name}: {cell.reason}", style="dim", highlight=False)
    total = sum(cell.runs + cell.trials for cell in cells if cell.size)
    note = "params: without embeddings and head; runs: trials+runs; time: measured steps, evaluation not included"
    console.print(note, style="dim", highlight=False)
    console.print(f"{total} runs, about {clock(estimate(cells, loaded))} on this machine", highlight=False)
