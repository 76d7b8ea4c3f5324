"""Hashes of training data: of the stream, which proves that every architecture saw the same, and of examples."""

from functools import cache
from hashlib import blake2b

import numpy as np

from zoo.types import Batch


def extend_hash(before: str, batch: Batch) -> str:
    """BLAKE2 of the hash so far and of every array of the batch: name, type, shape and bytes."""
    chain = blake2b(before.encode(), digest_size=16)
    for name, tensor in batch.arrays().items():
        chain.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        chain.update(tensor.numpy().tobytes())
    return chain.hexdigest()


def hash_examples(batch: Batch) -> np.ndarray:
    """An eight-byte hash of each example's inputs and masks, (B,) uint64."""
    total = np.zeros(len(batch), dtype=np.uint64)
    for index, name in enumerate(("inputs", "inputs2", "mask", "mask2")):
        value = getattr(batch, name)
        if value is None:
            continue
        flat = np.ascontiguousarray(value.numpy()).reshape(len(batch), -1)
        if flat.dtype.itemsize == 8:
            flat = flat.view(np.uint64)
        elif flat.dtype.itemsize == 4:
            flat = flat.view(np.uint32).astype(np.uint64)
        else:
            flat = flat.astype(np.float64).view(np.uint64)
        total += (flat * _weights(flat.shape[1], index)).sum(axis=1, dtype=np.uint64)
    total ^= total >> np.uint64(31)
    total *= np.uint64(0x9E3779B97F4A7C15)
    return total ^ (total >> np.uint64(29))


@cache
def _weights(count: int, which: int) -> np.ndarray:
    """Odd multipliers, the same in every process."""
    drawn = np.random.Generator(np.random.PCG64([count, which])).integers(0, 1 << 63, count, dtype=np.uint64)
    return drawn * np.uint64(2) + np.uint64(1)
