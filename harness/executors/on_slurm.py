"""Runs as Slurm jobs, by submitit; the nodes share the folder of results."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import submitit

from harness.executors.pool import Job
from harness.executors.remote import Remote, perform
from harness.isolation.supervisor import Bounds, Ended


class OnSlurm:
    """An executor of Slurm jobs; those submitted at once are one array.

    Args:
        folder: where submitit keeps what it hands over, shared by the nodes.
        capacity: jobs under way or queued. threads: cores of each.
        options: what submitit's `update_parameters` takes, such as `slurm_partition: gpu`, `timeout_min: 60`,
            `gpus_per_node: 1`; and `cluster`, its name for where jobs run: `slurm`, or `local` for this machine.
    """

    def __init__(self, folder: Path, capacity: int, threads: int, options: Mapping[str, Any]) -> None:
        options = {"cluster": "slurm", "timeout_min": 24 * 60, "cpus_per_task": threads, **options}
        self.capacity, self.threads = capacity, threads
        self.executor = submitit.AutoExecutor(folder, cluster=options.pop("cluster"))
        self.executor.update_parameters(**options)

    def submit(self, job: Job, bounds: Bounds) -> "_Submitted":
        """Start a job; see `Executor`."""
        return _Submitted(job, lambda: self.executor.submit(Perform(), job, bounds, self.threads))

    def together(self) -> AbstractContextManager[None]:
        """Jobs submitted in it are an array."""
        return self.executor.batch()

    def wait(self, handles: Sequence["_Submitted"], seconds: float) -> None:
        """Wait until all have been looked at again; see `Executor`."""
        time.sleep(seconds)


class Perform:
    """`perform`, which goes on in another job where Slurm takes the node away (preemption, the end of its time)."""

    def __call__(self, job: Job, bounds: Bounds, threads: int) -> Ended | None:
        return perform(job, bounds, threads)

    def checkpoint(self, *args: Any) -> submitit.helpers.DelayedSubmission:
        """What submitit is to queue again; the run goes on from its own checkpoint."""
        return submitit.helpers.DelayedSubmission(self, *args)


class _Submitted(Remote):
    def __init__(self, job: Job, start: Callable[[], submitit.Job[Ended | None]]) -> None:
        super().__init__(job)
        self.submitted = start()

    def finished(self) -> bool:
        return self.submitted.done()

    def result(self) -> Ended | None:
        return self.submitted.result()

    def kill(self) -> None:
        self.submitted.cancel()
