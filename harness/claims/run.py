"""Make what a claim lacks: the runs of its suite, or its experiment."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from harness import machine
from harness.board.results import run
from harness.claims.experiments import EXPERIMENTS
from harness.claims.plan import Scale, claims
from harness.claims.quantities import Measured, folder, read, write
from harness.records.provenance import commit


def make(name: str, scale: Scale, console: Console, root: Path | None = None, **options: Any) -> None:
    """Measure a claim; what was measured stays. `options` are those of `harness.run` that say where runs compute.

    Raises:
        UserError: see `harness.run`.
    """
    claim = claims()[name]
    if claim.suite is not None:
        changes = () if scale == "small" else (f"difficulty={scale}",)
        run(claim.suite, overrides=changes, root=folder(root), console=console, **options)
    elif not read(name, scale, root).values:
        write(name, scale, _experiment(f"{claim.experiment}", claim.seeds[scale], console), root)


def _experiment(name: str, seeds: int, console: Console) -> Measured:
    start, values = time.perf_counter(), dict[str, list[float]]()
    for seed in track(range(seeds), name, console=console, transient=True):
        for quantity, value in EXPERIMENTS[name](seed).items():
            values.setdefault(quantity, []).append(value)
    where = " on ".join(filter(None, (commit(), machine.hardware("cpu"))))
    return Measured(values, seconds=time.perf_counter() - start, made=[where])
