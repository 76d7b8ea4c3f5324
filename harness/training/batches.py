"""Training batches, made off the clock."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tasks.base import Task
from zoo.types import Batch


def stream(task: Task, seed: int, size: int, *, start: int = 0) -> Iterator[Batch]:
    """Training batches from number `start` on, each made in a second thread while the one before is being used."""
    with ThreadPoolExecutor(1, thread_name_prefix="data") as pool:
        ahead = pool.submit(task.batch, "train", start, seed, size=size)
        index = start
        while True:
            batch = ahead.result()
            index += 1
            ahead = pool.submit(task.batch, "train", index, seed, size=size)
            yield batch
