"""Estimate every cell's size, FLOPs, tokens and time before anything runs."""

import math
import statistics
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch.utils._python_dispatch import TorchDispatchMode

from harness import machine
from harness.plan.expand import expand
from harness.plan.sizes import build_model, count_runs, examples_of, solve, step_flops
from harness.records.spec import Cell, RunSpec
from harness.suite.loaded import LoadedSuite
from harness.training.evaluate import evaluate
from harness.training.optimizer import adamw, descend
from harness.units import clock, short
from tasks.base import Task
from tasks.parts import split
from zoo import size as sizing
from zoo.ops import forms

GATES = 2000
"""Examples that could be scored in the seconds in which the gates judge a run."""


@dataclass(frozen=True)
class Planned:
    """One architecture on one task, in one track: what each of its runs would be."""

    architecture: str
    task: str
    track: str
    runs: int
    """Those that are made in any case."""
    most: int
    """With all seeds that may be added; the same where they are fixed."""
    trials: int
    size: sizing.Size | None
    reason: str = ""
    tokens: float = 0.0
    steps: float = 0.0
    flops: float = 0.0
    seconds: float = 0.0
    """Training time of one run, from measured steps."""
    scoring: float = 0.0
    """Seconds in which a run is scored and judged by the gates, from a measured batch."""
    trial_scoring: float = 0.0
    kernels: int = 0
    """Ops of a training step in torch's forms, which each start a kernel on a GPU; 0 where they were not counted."""

    @property
    def cell(self) -> Cell:
        return Cell(self.architecture, self.task, self.track)


def plan(loaded: LoadedSuite, *, kernels: bool = False) -> list[Planned]:
    """Every cell of the suite, with a few training steps of each measured on this machine, and `kernels` counted."""
    specs, tries = expand(loaded), loaded.suite.tuning.effort if loaded.suite.tuning else 0
    added = len(loaded.suite.all_seeds) - len(loaded.suite.first_seeds)
    sizes = solve(specs, loaded)
    cells = []
    torch.set_num_threads(1)
    machine.warm_up(machine.pick())
    for spec in {spec.cell: spec for spec in specs}.values():
        runs, size = sum(other.cell == spec.cell for other in specs), sizes[spec.cell]
        if not isinstance(size, sizing.Size):
            cells.append(Planned(*spec.cell, runs, runs, 0, None, reason=size or ""))
        elif spec.pretrained:
            cells.append(Planned(*spec.cell, runs, runs, 0, size))
        else:
            cost = _measure(spec, loaded.task(spec.task_label).task, size, kernels)
            cells.append(Planned(*spec.cell, runs, runs + added, tries, size, **cost))
    return cells


def _measure(spec: RunSpec, task: Task, size: sizing.Size, kernels: bool) -> dict[str, Any]:
    assert spec.stop is not None
    assert spec.train is not None
    device, train, examples = machine.pick(), spec.train, examples_of(spec, task)
    batch = task.batch("train", 0, spec.seed, size=examples)
    parts = [part._replace(batch=part.batch.tensors(device)) for part in split(batch, train.accumulate)]
    model = build_model(spec, task, size).to(device)
    flops = step_flops(spec, task, model)
    optimizer = adamw(model, lr=0.0, betas=train.betas, weight_decay=train.weight_decay)

    def step() -> None:
        autocast = machine.autocast(device, machine.resolve_precision(train.precision, device))
        descend(model, parts, task.loss, optimizer, autocast=autocast, clip=train.clip)

    step()  # loads and compiles
    cost = {"tokens": examples * task.train_length, "steps": 1, "flops": flops, "seconds": _seconds(step)}
    steps = max(1, int(spec.stop.limit / cost[spec.stop.meter]))
    few = max(8, examples)
    each = _seconds(lambda: evaluate(model, task, "valid", size=few, limit=few)) / few
    counts = {split: len(task.evaluation_ids(split, spec.evaluate.limit(split))) for split in ("valid", "test")}
    along = counts["valid"] * math.ceil(1 / (spec.evaluate.every or 1))
    beside = {"scoring": each * (along + counts["test"] + GATES), "trial_scoring": each * along}
    return {meter: steps * value for meter, value in cost.items()} | beside | {"kernels": kernels and _kernels(step)}


class _Kernels(TorchDispatchMode):
    """Counts ops that are no views."""

    count = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not op.is_view
        return op(*args, **(kwargs or {}))


def _kernels(step: Callable[[], None]) -> int:
    with forms.torch_alone(), _Kernels() as kernels:
        step()
    return kernels.count


def _seconds(work: Callable[[], Any]) -> float:
    """Seconds that some work takes: the median of 3 times, or of up to 20 within a quarter of a second."""
    end, times = time.monotonic() + 0.25, list[float]()
    while len(times) < 3 or (len(times) < 20 and time.monotonic() < end):
        times += timeit.repeat(work, number=1, repeat=1)
    return statistics.median(times)


def show(cells: list[Planned], loaded: LoadedSuite, wall: tuple[float, float], console: Console) -> None:
    """The plan as a table, with the seconds that all of it takes here, without and with all seeds that may be added."""
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
        runs = str(cell.runs) if cell.most == cell.runs else f"{cell.runs}–{cell.most}"
        runs = f"{cell.trials}+{runs}" if cell.trials else runs
        sizes = (str(cell.size.width), str(cell.size.depth), short(cell.size.params_non_embedding), off)
        table.add_row(*where, runs, *sizes, short(cell.tokens), short(cell.flops), clock(cell.seconds))
    console.print(table)
    for cell in cells:
        if cell.size is None:
            name = " · ".join(filter(None, (cell.architecture, cell.task, cell.track)))
            console.print(f"unsupported: {name}: {cell.reason}", style="dim", highlight=False, markup=False)
    note = "params: without embeddings and head; runs: trials+runs; time: measured steps, without what is beside them"
    console.print(note, style="dim", highlight=False, markup=False)
    counts = count_runs(expand(loaded), {cell.cell: cell.size or cell.reason for cell in cells}, loaded)
    span = clock(wall[0]) + (f" to {clock(wall[1])}" if counts.added else "")
    console.print(f"{counts}; about {span} on this machine", highlight=False)
