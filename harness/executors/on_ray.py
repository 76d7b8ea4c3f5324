"""Runs on a Ray cluster, whose nodes share the folder of results."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import ray

from harness.executors.pool import Job
from harness.executors.remote import Remote, perform
from harness.isolation.supervisor import Bounds, Ended


class OnRay:
    """An executor of Ray tasks, which Ray queues, and starts where there is room.

    Args:
        address: of the cluster; None for `$RAY_ADDRESS`, or a cluster of this machine alone.
        capacity: tasks under way or queued. threads: cores of each.
        options: more of what `ray.remote` takes, such as `num_gpus: 0.5` or `accelerator_type: H100`.
    """

    def __init__(self, address: str | None, capacity: int, threads: int, options: Mapping[str, Any]) -> None:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level="error")
        self.capacity, self.threads = capacity, threads
        self.task = ray.remote(**{"max_retries": 0, "num_cpus": threads, **options})(perform)

    def submit(self, job: Job, bounds: Bounds) -> "_Task":
        """Start a job; see `Executor`."""
        return _Task(job, lambda: self.task.remote(job, bounds, self.threads))

    def together(self) -> AbstractContextManager[None]:
        """Nothing to do for several."""
        return nullcontext()

    def wait(self, handles: Sequence["_Task"], seconds: float) -> None:
        """Wait for the end of one; see `Executor`."""
        if handles:
            ray.wait([handle.task for handle in handles], timeout=seconds)


class _Task(Remote):
    def __init__(self, job: Job, start: Callable[[], Any]) -> None:
        super().__init__(job)
        self.task = start()

    def finished(self) -> bool:
        return bool(ray.wait([self.task], timeout=0)[0])

    def result(self) -> Ended | None:
        return ray.get(self.task)

    def kill(self) -> None:
        ray.cancel(self.task, force=True)
