"""Estimate every cell's size, FLOPs, tokens and time before anything runs."""

import timeit
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import machine, processes
from harness.plan.expand import expand
from harness.plan.sizes import build_model, count_runs, examples_of, solve, step_flops
from harness.records.spec import Cell, RunSpec
from harness.suite.loaded import LoadedSuite
from harness.training.optimizer import adamw, descend
from harness.units import clock, short
from tasks.base import Task
from tasks.parts import split
from zoo import size as sizing


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

    @property
    def cell(self) -> Cell:
        return Cell(self.architecture, self.task, self.track)


def plan(loaded: LoadedSuite) -> list[Planned]:
    """Every cell of the suite, with a few training steps of each measured on this machine."""
    specs, tries = expand(loaded), loaded.suite.tuning.effort if loaded.suite.tuning else 0
    sizes = solve(specs, loaded)
    cells = []
    torch.set_num_threads(1)
    for spec in {spec.cell: spec for spec in specs}.values():
        runs, size = sum(other.cell == spec.cell for other in specs), sizes[spec.cell]
        if not isinstance(size, sizing.Size):
            cells.append(Planned(*spec.cell, runs, 0, None, reason=size or ""))
        elif spec.pretrained:
            cells.append(Planned(*spec.cell, runs, 0, size))
        else:
            cost = _measure(spec, loaded.task(spec.task_label).task, size)
            cells.append(Planned(*spec.cell, runs, tries, size, **cost))
    return cells


def _measure(spec: RunSpec, task: Task, size: sizing.Size) -> dict[str, Any]:
    assert spec.stop is not None
    assert spec.train is not None
    device = machine.pick()
    examples = examples_of(spec, task)
    batch = task.batch("train", 0, spec.seed, size=examples)
    parts = [part._replace(batch=part.batch.tensors(device)) for part in split(batch, spec.train.accumulate)]
    model = build_model(spec, task, size).to(device)
    flops, train = step_flops(spec, task, model), spec.train
    optimizer = adamw(model, lr=0.0, betas=train.betas, weight_decay=train.weight_decay)

    def step() -> None:
        autocast = machine.autocast(device, machine.resolve_precision(train.precision, device))
        descend(model, parts, task.loss, optimizer, autocast=autocast, clip=train.clip)

    seconds = min(timeit.repeat(step, number=1, repeat=4))
    cost = {"tokens": examples * task.train_length, "steps": 1, "flops": flops, "seconds": seconds}
    steps = max(1, int(spec.stop.limit / cost[spec.stop.meter]))
    return {meter: steps * value for meter, value in cost.items()}


def estimate(cells: list[Planned], loaded: LoadedSuite) -> float:
    """Seconds of wall time for the whole suite with one worker per core."""
    fraction = loaded.suite.tuning.budget if loaded.suite.tuning else 0.0
    return sum(cell.seconds * (cell.runs + cell.trials * fraction) for cell in cells) / processes.default_workers()


def show(cells: list[Planned], loaded: LoadedSuite, console: Console) -> None:
    """The plan as a table."""
    table = Table(title=f"plan of {loaded.name}", title_justify="left", header_style="bold")
    names = ["task", "track"] if loaded.suite.tracks else ["task"]
    left = [*names, "architecture"]
    for name in (*left, "runs", "width", "depth", "params", "off", "tokens", "FLOPs", "time a run"):
        table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    for cell in cells:
        where = [Text(getattr(cell, name)) for name in left]
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
            console.print(f"unsupported: {name}: {cell.reason}", style="dim", highlight=False, markup=False)
    note = "params: without embeddings and head; runs: trials+runs; time: measured steps, evaluation not included"
    console.print(note, style="dim", highlight=False, markup=False)
    counts = count_runs(expand(loaded), {cell.cell: cell.size or cell.reason for cell in cells}, loaded)
    console.print(f"{counts}; about {clock(estimate(cells, loaded))} on this machine", highlight=False)
