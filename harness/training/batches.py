"""Training batches, made and hashed off the clock."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from harness.records.stream_hash import extend_hash, hash_examples
from tasks.base import Task
from zoo.types import Batch


class HashedBatch(NamedTuple):
    """A batch with the hash of the stream up to it, and one of each of its examples."""

    batch: Batch
    stream_hash: str
    examples: np.ndarray


def stream(task: Task, seed: int, size: int, *, start: int = 0, before: str = "") -> Iterator[HashedBatch]:
    """Training batches from number `start` on, each made and hashed in a second thread while one before is in use.

    `before` is the hash of the stream up to `start`.
    """

    def make(index: int, before: str) -> HashedBatch:
        batch = task.batch("train", index, seed, size=size)
        return HashedBatch(batch, extend_hash(before, batch), hash_examples(batch))

    with ThreadPoolExecutor(1, thread_name_prefix="data") as pool:
        ahead = pool.submit(make, start, before)
        while True:
            made = ahead.result()
            start += 1
            ahead = pool.submit(make, start, made.stream_hash)
            yield made
