"""Batches off the clock, and the rolling hash that proves every architecture saw the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

from tasks.base import Task
from zoo.types import Batch


def extend_hash(before: str, batch: Batch) -> str:
    """BLAKE2 of the hash so far and of every array of the batch: name, type, shape and bytes."""
    chain = blake2b(before.encode(), digest_size=16)
    for name, tensor in batch.arrays().items():
        chain.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        chain.update(tensor.numpy().tobytes())
    return chain.hexdigest()


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
