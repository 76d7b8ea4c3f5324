"""Texts as rows of byte tokens, and their order by content: what the tasks about documents share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from tasks.base import Ids

VOCAB = 257
"""Token 0 is padding, byte b is token b + 1, as in `tfds.deprecated.text.ByteTextEncoder`."""


@dataclass(frozen=True, slots=True)
class Documents:
    """Texts, one behind another."""

    content: NDArray[np.uint8]
    starts: Ids
    sizes: Ids

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Documents:
        """The texts in their order."""
        sizes = np.array([len(text) for text in texts], dtype=np.int64)
        return cls(np.frombuffer(b"".join(texts), dtype=np.uint8), np.cumsum(sizes) - sizes, sizes)

    def tokens(self, ids: Ids, length: int, skipped: Ids | int = 0) -> tuple[Ids, NDArray[np.bool_]]:
        """Bytes `skipped` to `skipped + length` of each text as tokens, and where they are: both (N, `length`)."""
        places = skipped + np.zeros((len(ids), 1), dtype=np.int64) + np.arange(length)
        mask = places < self.sizes[ids, None]
        found = self.content[np.where(mask, places + self.starts[ids, None], 0)]
        return np.where(mask, found.astype(np.int64) + 1, 0), mask

    def texts(self, ids: Ids, length: int) -> Iterator[bytes]:
        """The first `length` bytes of each."""
        for start, size in zip(self.starts[ids], self.sizes[ids], strict=True):
            yield self.content[start : start + min(size, length)].tobytes()


def by_content(keys: Sequence[bytes], excluded: Sequence[bytes] = ()) -> list[int]:
    """The places of the different keys that are not `excluded`, each where it stands first, in the order of hashes."""
    first: dict[bytes, int] = {}
    for place, key in enumerate(keys):
        first.setdefault(key, place)
    for key in excluded:
        first.pop(key, None)
    return [first[key] for key in sorted(first, key=lambda key: blake2b(key, digest_size=16).digest())]
