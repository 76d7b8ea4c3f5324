"""What tasks of role `seq2seq` share: target tokens, and the splits of a fixed list of contents."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.base import SPLITS, Ids, Split
from tasks.splits import home
from zoo.types import Batch

START, STOP, FIRST = 0, 1, 2
"""Target tokens: the start (and the padding), the stop, and the first of the symbols."""


def shifted(symbols: NDArray[np.integer], lengths: Ids) -> dict[str, NDArray[Any]]:
    """Targets of a decoder from answers (N, L) of which the first `lengths` (N,) symbols of a row are valid.

    Returns:
        `targets`: symbols plus 2, then the stop token, then 0; `counted`: up to the stop token, it included;
        `decoder_inputs`: the start token, then the targets but the last. All (N, L + 1).
    """
    steps = np.arange(symbols.shape[1] + 1)
    targets = np.zeros((len(symbols), len(steps)), dtype=np.int64)
    targets[:, :-1] = symbols + FIRST
    targets[steps >= lengths[:, None]] = START
    np.put_along_axis(targets, lengths[:, None], STOP, axis=1)
    decoder_inputs = np.zeros_like(targets)
    decoder_inputs[:, 1:] = targets[:, :-1]
    return {"targets": targets, "counted": steps <= lengths[:, None], "decoder_inputs": decoder_inputs}


@dataclass(frozen=True, slots=True)
class PairTable:
    """Sources and answers of a fixed list of pairs, one a row (N rows), and which rows are the examples of a split."""

    inputs: NDArray[np.int32]
    inputs_of: Ids
    """How many tokens of each row are valid."""
    targets: NDArray[np.int32]
    targets_of: Ids
    rows: dict[Split, Ids]

    def examples(self, split: Split, ids: Ids) -> Batch:
        """The examples of a split with these ids."""
        rows = self.rows[split][ids]
        mask = np.arange(self.inputs.shape[1]) < self.inputs_of[rows][:, None]
        answers = shifted(self.targets[rows].astype(np.int64), self.targets_of[rows])
        return Batch(inputs=self.inputs[rows].astype(np.int64), mask=mask, **answers)


def answers(targets: Any) -> list[list[int]]:
    """The tokens before the stop token, for each row of targets (N, U)."""
    return [row[: row.index(STOP)] for row in np.asarray(targets).tolist()]


def sources(inputs: Any, mask: Any) -> list[tuple[int, ...]]:
    """The valid tokens of each row of inputs (N, S)."""
    lengths = np.asarray(mask).sum(axis=1).tolist()
    return [tuple(row[:n]) for row, n in zip(np.asarray(inputs).tolist(), lengths, strict=True)]


def packed(rows: Sequence[Sequence[int]], width: int) -> tuple[NDArray[np.int32], Ids]:
    """Rows of up to `width` numbers as one array (N, width), padded with zeros, and their lengths (N,)."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    array = np.zeros((len(rows), width), dtype=np.int32)
    array[np.arange(width) < lengths[:, None]] = np.fromiter(chain.from_iterable(rows), dtype=np.int32)
    return array, lengths


def at_home(contents: NDArray[np.integer]) -> dict[Split, Ids]:
    """For each split the numbers of the rows of `contents` (N, L) that belong to it, by their content."""
    homes = home(contents.astype(np.int64))
    return {split: np.flatnonzero(homes == number) for number, split in enumerate(SPLITS)}


def neighbour(ordered: Sequence[str], source: str) -> int:
    """Which of the ordered strings begins most like `source`: one of the two between which it would stand."""
    at = bisect_left(ordered, source)
    either = [place for place in (at - 1, at) if 0 <= place < len(ordered)]
    return max(either, key=lambda place: _alike(ordered[place], source))


def _alike(a: str, b: str) -> int:
    """How many characters two strings begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
