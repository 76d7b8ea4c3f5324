"""Where runs are done: processes of this machine, Ray, Slurm; and the pool that sees to every run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.processes import default_workers

if TYPE_CHECKING:
    from harness.executors.pool import Executor

PLACES = ("here", "ray", "slurm")
QUEUED = 10_000
"""Runs that a cluster is given at a time, unless the user says: it queues them better than we could."""


def named(
    place: str,
    folder: Path,
    workers: int | None,
    threads: int | None,
    *,
    address: str | None,
    options: Mapping[str, Any],
    devices: int = 1,
) -> tuple[Executor, int]:
    """The executor of one of `PLACES`, of at most `workers` runs at a time, and the threads of each run.

    Args:
        folder: the suite's, shared with the machines of a cluster. address: of a Ray cluster.
        options: what Ray or submitit is told of each run.
        devices: on which each run is trained together, with as many threads on each.

    Raises:
        UserError: there are fewer GPUs than a run is to be trained on; or Ray or submitit is not installed, cannot be
            reached, or does not know an option.
    """
    if place == "here":
        from harness import machine
        from harness.executors.local import Local

        gpus = len(machine.cards())
        if 0 < gpus < devices:
            raise UserError(f"a run is to be trained on {devices} GPUs; there are {gpus} here", file="limits.devices")
        workers = workers or gpus // devices or max(1, default_workers() // ((threads or 1) * devices))
        return Local(workers, devices), threads or max(1, default_workers() // (workers * devices))
    capacity, threads = workers or QUEUED, threads or 1
    try:
        if place == "ray":
            from harness.executors.on_ray import OnRay

            return OnRay(address, capacity, threads * devices, options), threads
        from harness.executors.on_slurm import OnSlurm

        return OnSlurm(folder / ".slurm", capacity, threads * devices, options), threads
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; pip install 'zoobench[cluster]'", file="--on") from None
    except (OSError, RuntimeError, ValueError, TypeError, NameError) as error:
        raise UserError(f"{place} cannot be used: {' '.join(str(error).split())[:500]}", file="--on") from None
