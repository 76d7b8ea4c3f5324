"""Random numbers as a pure function of a key and coordinates: no state, no global generator, the same on every machine.

Each number is the SplitMix64 finaliser (Steele, Lea and Flood 2014) applied to a key and to the number's coordinates,
so that any example of any split can be made alone, in any order, by any worker.
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Draws:
    """A family of random numbers under one key, such as `Draws("recall", split, seed, "keys")`.

    Every method takes example ids (N,) and returns one row of `n` numbers per id; a row depends on its id alone.
    """

    def __init__(self, *key: str | int) -> None:
        digest = blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
        self._key = np.frombuffer(digest, dtype="<u8").astype(np.uint64)

    @property
    def key(self) -> int:
        """The key as a number, for compiled loops that draw as `bits` does."""
        return int(self._key[0])

    def bits(self, ids: NDArray[np.int64], n: int) -> NDArray[np.uint64]:
        """64 random bits at each of (N, n) places."""
        with np.errstate(over="ignore"):
            row = _mix(np.asarray(ids, dtype=np.uint64)[:, None] * _GOLDEN + self._key)
            column = np.arange(1, n + 1, dtype=np.uint64)[None, :] * _GOLDEN
            return _mix(row + column)

    def uniform(self, ids: NDArray[np.int64], n: int) -> NDArray[np.float64]:
        """Numbers in [0, 1), shape (N, n)."""
        return (self.bits(ids, n) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def integers(self, ids: NDArray[np.int64], n: int, low: int, high: int) -> NDArray[np.int64]:
        """Integers in [low, high), shape (N, n)."""
        return low + (self.uniform(ids, n) * (high - low)).astype(np.int64)

    def permutation(self, ids: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """A permutation of 0..n−1 per row, shape (N, n)."""
        return np.argsort(self.bits(ids, n), axis=1, kind="stable").astype(np.int64)

    def sample(
        self, ids: NDArray[np.int64], n: int, k: int, weights: NDArray[np.float64] | None = None
    ) -> NDArray[np.int64]:
        """k different ones of 0..n−1 per row, in the order drawn, shape (N, k).

        With `weights` (n,), each is drawn from those left with a probability proportional to its weight: the k smallest
        of n exponential variables with these rates (Efraimidis and Spirakis 2006).
        """
        keys = self.bits(ids, n) if weights is None else -np.log1p(-self.uniform(ids, n)) / weights
        first = np.argpartition(keys, k - 1, axis=1)[:, :k]
        order = np.argsort(np.take_along_axis(keys, first, axis=1), axis=1, kind="stable")
        return np.take_along_axis(first, order, axis=1).astype(np.int64)
