"""The rolling hash which proves that every architecture saw the same batches."""

from __future__ import annotations

from hashlib import blake2b

from zoo.types import Batch


def extend_hash(before: str, batch: Batch) -> str:
    """BLAKE2 of the hash so far and of every array of the batch: name, type, shape and bytes."""
    chain = blake2b(before.encode(), digest_size=16)
    for name, tensor in batch.arrays().items():
        chain.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        chain.update(tensor.numpy().tobytes())
    return chain.hexdigest()
