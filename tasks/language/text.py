"""Language modelling over the bytes of a text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks import corpora
from tasks.base import Baseline, DataError, Ids, Metric, Split, Task, Totals, fingerprint, whole
from tasks.baselines import Bytes, ngram_bits, xz_bits_per_byte
from tasks.registry import register
from zoo.terms import Batch, Shape

if TYPE_CHECKING:
    from torch import Tensor

BORDERS: dict[Split, tuple[int, int]] = {"train": (0, 90), "tune": (90, 92), "valid": (92, 95), "test": (95, 100)}
"""Where each split begins and ends, in hundredths of the text: a border at p stands before byte ⌊p·n/100⌋."""


@register(source="https://github.com/karpathy/char-rnn (splits by position, as there)")
class Text(Task):
    """Predict the next byte of real text.

    A split is one contiguous stretch of the text (see `BORDERS`). Its example i is the window [i·T, i·T + T] of T+1
    bytes: inputs are all but the last, targets all but the first, both (B, T) int64, so that every byte of a split but
    the first (and less than T at the end) is a target exactly once. The grid of windows is the same in every epoch.

    Args:
        corpus: a known text corpus. path: a file to use instead. length: T, in bytes.

    Raises:
        ValueError: `corpus` is unknown, or `length` is not a positive whole number.
        DataError: the file at `path` is absent or empty, or a split is shorter than one window.
    """

    role = "lm"
    metric = Metric("bits_per_byte", higher_is_better=False, chance=8.0, unit="bits/byte")

    def __init__(self, *, corpus: str = "wikipedia_xml", path: str | None = None, length: int = 128) -> None:
        if path is not None and corpus != "wikipedia_xml":
            raise ValueError("text takes `corpus` or `path`, not both")
        self.length = whole("text", "length", length)
        self.card = corpora.of_file(Path(path)) if path is not None else corpora.get(corpus, "text")
        for split in BORDERS:
            if self.count(split) < 1:
                start, stop = self._span(split)
                raise DataError(
                    f"{path or corpus} has {self.card.size} bytes, {stop - start} of them in split {split!r}: "
                    f"one example of length {length} needs {length + 1}"
                )

    @property
    def shape(self) -> Shape:
        """Bytes in, a distribution over the next byte out."""
        return Shape(length=self.length, vocab=256, outputs=256)

    @property
    def fingerprint(self) -> str:
        """The text's SHA-256 and T; where the text lies does not matter."""
        return fingerprint("text", 1, content=self.card.sha256, length=self.length)

    def count(self, split: Split) -> int:
        """Whole windows in a split."""
        start, stop = self._span(split)
        return (stop - start - 1) // self.length

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        """Windows number `ids` of a split; `seed` does not matter."""
        first = self._span(split)[0] + ids * self.length
        windows = self._data[first[:, None] + np.arange(self.length + 1)].astype(np.int64)
        return Batch(inputs=windows[:, :-1], targets=windows[:, 1:])

    def totals(self, logits: Tensor, batch: Batch) -> Totals:
        """`Task.totals` and bits per byte."""
        totals = super().totals(logits, batch)
        nats, targets = totals["loss"]
        return {**totals, "bits_per_byte": (nats / math.log(2), targets)}

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """n-gram models on the target bytes of the test examples, and xz on the whole test split. Takes some 15 s."""
        data, (begin, end) = self._data, self._span("train")
        ids = self.evaluation_ids("test", limit)
        targets = self._span("test")[0] + ids[:, None] * self.length + np.arange(1, self.length + 1)
        bits = ngram_bits(data[begin:end], data, targets.ravel(), order=5).mean(axis=1)
        start, stop = self._span("test")
        xz = xz_bits_per_byte(data[begin:end].tobytes(), data[start:stop].tobytes())
        how = (
            "Witten-Bell interpolation, counted on the whole train split; its context reaches back over window borders"
        )
        return [
            *(
                Baseline(name, float(bits[order - 1]), f"{order - 1} bytes of context; {how}")
                for name, order in (("unigram", 1), ("bigram", 2), ("trigram", 3), ("5-gram", 5))
            ),
            Baseline("xz", xz, "8 (|xz(train + test)| - |xz(train)|) / |test| at preset 9e, over the whole test split"),
        ]

    def _span(self, split: Split) -> tuple[int, int]:
        start, stop = BORDERS[split]
        return self.card.size * start // 100, self.card.size * stop // 100

    @property
    def _data(self) -> Bytes:
        return np.frombuffer(corpora.load(self.card), dtype=np.uint8)
