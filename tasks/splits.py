"""Which split an example belongs to, by its content: so splits share none, however few different examples there are."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tasks.base import Ids, Split
from tasks.draws import Draws

SHARES: dict[Split, int] = {"train": 80, "tune": 4, "valid": 6, "test": 10}
"""Of all contents, in hundredths."""
ATTEMPTS = 2000
CHAIN = Draws("content")
"""What mixes the numbers of a content into one."""


def home(contents: NDArray[np.int64]) -> NDArray[np.int64]:
    """The split of each row of `contents` (N, L), as a number 0..3 in the order of `SHARES`: shape (N,)."""
    state = np.zeros(len(contents), dtype=np.int64)
    for column in contents.T:
        state = CHAIN.bits(state ^ column.astype(np.int64), 1)[:, 0].view(np.int64)
    hundredth = (state.view(np.uint64) >> np.uint64(11)).astype(np.float64) * 2.0**-53 * 100
    return np.searchsorted(np.cumsum(list(SHARES.values())), hundredth, side="right").astype(np.int64)


def drawn(split: Split, ids: Ids, make: Callable[[Ids, int], NDArray[np.int64]], *, what: str) -> NDArray[np.int64]:
    """For every id the first candidate that belongs to `split`: shape (N, L).

    Args:
        make: from ids (N,) and the number of the attempt to candidates (N, L): what makes an example itself, so that
            equal examples have equal rows. A row depends on its id and the attempt alone.
        what: who asks, for the message.

    Raises:
        ValueError: so few contents are possible that an id found none of its split.
    """
    wanted = list(SHARES).index(split)
    rows = make(ids, 0)
    left = np.flatnonzero(home(rows) != wanted)
    for attempt in range(1, ATTEMPTS):
        if not len(left):
            return rows
        rows[left] = make(ids[left], attempt)
        left = left[home(rows[left]) != wanted]
    raise ValueError(f"{what}: too few different examples for split {split!r} to have its own; make them longer")
