"""What the tasks on a text share: its splits, its tokens, windows of it, and scores per byte."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, get_args

import numpy as np
from numpy.typing import NDArray

from tasks import corpora
from tasks.base import DataError, Ids, Metric, Split, Task, Totals, fingerprint, whole
from tasks.baselines import Bytes
from tasks.language import tokens as tokenised
from tasks.language.tokens import KINDS, Kind
from zoo.registry import nearest
from zoo.types import Batch, Shape

if TYPE_CHECKING:
    from torch import Tensor

BORDERS: dict[Split, tuple[int, int]] = {"train": (0, 90), "tune": (90, 92), "valid": (92, 95), "test": (95, 100)}
"""Where each split begins and ends, in hundredths of the text: a border at p stands before byte ⌊p·n/100⌋, or, where
tokens are not bytes, before the next character."""


class Windows(Task):
    """A task on windows of T tokens and `_ahead` more of one text.

    A split is one contiguous stretch of the text (see `BORDERS`), tokenised by itself; window i begins at its token
    i·T. What a text says twice can stand in two splits: with `wikipedia_xml` 13 of 9,514 held-out windows of 65 bytes,
    all of markup, and none of 129. With `tokens="bytes"` everything but the content is known without reading the text.
    """

    _bits: ClassVar[str]
    """The metric's name."""
    _ahead: ClassVar[int]
    _masks: ClassVar[int]
    """Tokens that are shown and stand for no text."""

    def __init__(
        self, *, corpus: str = "wikipedia_xml", path: str | None = None, length: int = 128, tokens: Kind = "bytes"
    ) -> None:
        if path is not None and corpus != "wikipedia_xml":
            raise ValueError(f"{self.name} takes `corpus` or `path`, not both")
        if tokens not in get_args(Kind):
            raise ValueError(
                f"{self.name}: tokens must be one of {', '.join(KINDS)}, got {tokens!r}{nearest(str(tokens), KINDS)}"
            )
        self.length, self.tokens = whole(self.name, "length", length), tokens
        known = corpora.of_file(Path(path)) if path is not None else corpora.get(corpus, "text")
        self.card = corpora.pinned(known)
        assert self.card.size is not None
        self._size: int = self.card.size
        told = {"tokens": tokens} if self._masks or tokens != "bytes" else {}  # the first ones of `text` named none
        self.fingerprint = fingerprint(self.name, 1, content=self.card.sha256, length=length, **told)
        if tokens == "bytes":
            for split in BORDERS:
                self._windows(split)

    @cached_property
    def shape(self) -> Shape:  # type: ignore[override]
        """Tokens in, the mask among them, and a distribution over those of the text out, at every place."""
        return Shape(length=self.length, vocab=self.vocab + self._masks, outputs=self.vocab)

    @cached_property
    def metric(self) -> Metric:  # type: ignore[override]
        """Bits per byte; chance is a uniform guess among all tokens, on the test split."""
        unit = "bits/byte"
        if self.tokens == "bytes":
            return Metric(self._bits, higher_is_better=False, chance=8.0, unit=unit)
        widths = self.widths[self._stream("test")]
        return Metric(self._bits, False, float(math.log2(self.vocab) * len(widths) / widths.sum()), unit)

    @property
    def vocab(self) -> int:
        """Different tokens."""
        return tokenised.size(self.card, self.tokens)

    @property
    def widths(self) -> NDArray[np.int64]:
        """UTF-8 bytes of each token, shape (vocab,)."""
        return tokenised.widths(self.card, self.tokens)

    def totals(self, logits: Tensor, batch: Batch) -> Totals:
        """`Task.totals` and bits per byte: nats / ln 2 / UTF-8 bytes of the targets that count."""
        import torch

        totals = super().totals(logits, batch)
        widths = torch.from_numpy(self.widths)[batch.targets.cpu()]
        if batch.counted is not None:
            widths = widths[batch.counted.cpu()]
        return {**totals, self._bits: (totals["loss"][0] / math.log(2), float(widths.sum()))}

    def _windows(self, split: Split) -> int:
        """Whole windows in a split.

        Raises:
            DataError: there is none.
        """
        start, stop = self._span(split)
        found = stop - start if self.tokens == "bytes" else len(self._stream(split))
        if found < self.length + self._ahead:
            counted = f"{found} of them" if self.tokens == "bytes" else f"{found} {self.tokens} tokens"
            raise DataError(
                f"{self.card.name} has {self._size} bytes, {counted} in split {split!r}: "
                f"one example of length {self.length} needs {self.length + self._ahead}"
            )
        return (found - self._ahead) // self.length

    def _window(self, split: Split, numbers: Ids) -> NDArray[np.int64]:
        """Windows of a split, by number: (N,) -> (N, T + ahead)."""
        places = numbers[:, None] * self.length + np.arange(self.length + self._ahead)
        return self._stream(split)[places].astype(np.int64)

    def _span(self, split: Split) -> tuple[int, int]:
        """Where a split begins and ends, in bytes."""
        start, stop = (tokenised.border(self.card, self.tokens, self._size * place // 100) for place in BORDERS[split])
        return start, stop

    def _stream(self, split: Split) -> NDArray[np.unsignedinteger]:
        """The tokens of a split."""
        return tokenised.encoded(self.card, self.tokens, *self._span(split))

    @property
    def _data(self) -> Bytes:
        return np.frombuffer(corpora.load(self.card), dtype=np.uint8)
