"""Film reviews, read byte by byte: good or bad?"""

import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from tasks import corpora
from tasks.base import Baseline, DataError, Ids, Metric, Split, Task, difficulty, fingerprint, whole
from tasks.baselines import accuracy, commonest, logistic_regression
from tasks.corpora import Card, tabular
from tasks.corpora.tabular import Column, Table
from tasks.long_range.documents import VOCAB, Documents, by_content
from tasks.registry import register
from zoo.files import read_bytes, user_path
from zoo.types import Batch, Shape

KEY = 64
"""Reviews whose first 64 bytes are equal are taken for one; no input is shorter, so splits share none."""
DIFFERENT = 24_875
"""Of the corpus's 25,000 reviews."""
HELD_OUT: dict[Split, int] = {"tune": 500, "valid": 1000, "test": 3000}
SHARES: dict[Split, int] = {"tune": 4, "valid": 6, "test": 10}
"""Held out of a file of the user's, in hundredths."""
WORDS = 10_000
"""The commonest words of training, which the baseline counts."""

Reviews = dict[Split, tuple[Documents, Ids]]
"""Texts and labels of each split."""


@register(
    paper="Tay et al. 2020, Long Range Arena, arXiv:2011.04006, section 2.2.2; Maas et al. 2011, Learning Word Vectors "
    "for Sentiment Analysis",
    source="https://github.com/google-research/long-range-arena (lra_benchmarks/text_classification/input_pipeline.py)",
    deviations=(
        "without `path`, the 25,000 official training reviews in splits of our own: scores do not compare",
        "with `path`, valid and tune are held out of the official training reviews; the official pipeline validates on "
        "the test reviews",
        "of reviews with the same first 64 bytes one is kept, and none of training is in test",
    ),
)
class Imdb(Task):
    """Is a film review favourable (1) or not (0)? Its first `length` bytes, one token each.

    inputs (B, T): 0 where padded, byte b is b + 1. mask the same shape. targets (B,). The reviews are sorted by a hash
    of their first 64 bytes, of which each occurs once, and cut into splits.

    Args:
        length: T, at least 64. tokens: bytes, the only ones there are.
        path: the official folder aclImdb (with train/pos, train/neg, test/pos and test/neg), or a table: CSV, TSV,
            JSON Lines or Parquet, with columns label (0 or 1) and text, or without a header and in that order (for the
            rule see `tasks.corpora.tabular.read`). It is read when the task is built. Of its reviews 4, 6 and 10
            hundredths are held out.
        hub: owner/name, a data set of the Hugging Face hub that is such a table, of which `split` is read.
        label, text: names of the columns, where they differ from these, or their places from 1.

    Raises:
        DataError: what is at `path` is absent, empty, or has other columns or labels, or too few reviews.
    """

    role = "classify"
    metric = Metric("accuracy", higher_is_better=True, chance=0.5)
    difficulties: ClassVar = {
        "smoke": difficulty({"length": 256}, 50_000, tokens=200_000, lr=2e-3, batch_tokens=4096, depth=2, heads=2),
        "small": difficulty({"length": 512}, 200_000, tokens=5_000_000, lr=1e-3, batch_tokens=8192, depth=4, heads=4),
        "paper": difficulty(
            {"length": 4000},
            3_150_000,
            steps=20_000,
            lr=5.6e-4,
            batch_tokens=128_000,
            train={"weight_decay": 0.1},
            depth=4,
            heads=4,
        ),
    }

    def __init__(
        self,
        *,
        length: int = 512,
        tokens: Literal["bytes"] = "bytes",
        path: str | None = None,
        hub: str | None = None,
        split: str = "train",
        label: str | int | None = None,
        text: str | int | None = None,
    ) -> None:
        self.length = whole("imdb", "length", length, KEY)
        if tokens != "bytes":
            raise ValueError(f"imdb: tokens must be 'bytes', got {tokens!r}")
        self._own = _of_folder(path) if path is not None and os.path.isdir(user_path(path)) else None
        columns = Column("label", label, ("0", "1")), Column("text", text)
        if not self._own and (table := tabular.read("imdb", *columns, path=path, hub=hub, split=split, quotes=True)):
            self._own = _of_table(table, str(path or hub)), table.content
        self.shape = Shape(length=length, vocab=VOCAB, outputs=2)
        content = self._own[1] if self._own else corpora.get("imdb_25k").sha256
        self.fingerprint = fingerprint("imdb", 1, content=content, length=length)

    def count(self, split: Split) -> int:
        if self._own:
            return len(self._own[0][split][1])
        return DIFFERENT - sum(HELD_OUT.values()) if split == "train" else HELD_OUT[split]

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        documents, labels = self._reviews[split]
        inputs, mask = documents.tokens(ids, self.length)
        return Batch(inputs=inputs, targets=labels[ids], mask=mask)

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """A guess, and what the words tell without their order."""
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import Normalizer

        ids: dict[Split, Ids] = {"train": np.arange(self.count("train")), "test": self.evaluation_ids("test", limit)}
        train, test = (self._reviews[split][1][ids[split]] for split in ids)

        def words(split: Split) -> list[set[bytes]]:
            texts = self._reviews[split][0].texts(ids[split], self.length)
            return [set(re.findall(rb"[a-z']+", text.lower())) for text in texts]

        told, asked = words("train"), words("test")
        counted = Counter(word for words in told for word in words).most_common(WORDS)
        known = [word for word, _ in counted] or [b""]
        present = make_pipeline(CountVectorizer(analyzer=list, vocabulary=known, lowercase=False), Normalizer())
        answers = logistic_regression(present.fit_transform(told), train, present.transform(asked), l2=1e-4)
        how = f"logistic regression on which of the {WORDS:,} commonest words the same bytes hold, L2 1e-4"
        return [
            accuracy("majority", commonest(train), test, "always the commoner label of the train split"),
            accuracy("bag of words", answers, test, how),
        ]

    @property
    def _reviews(self) -> Reviews:
        return self._own[0] if self._own else _of_corpus(corpora.get("imdb_25k"))


@lru_cache(maxsize=1)
def _of_corpus(card: Card) -> Reviews:
    rows = csv.DictReader(io.StringIO(corpora.load(card).decode(), newline=""))
    pairs = [(row["text"].encode(), int(row["label"])) for row in rows if row["source"] == "imdb"]
    return _cut(pairs, lambda total: HELD_OUT)


def _cut(
    pairs: list[tuple[bytes, int]],
    held_out: Callable[[int], dict[Split, int]],
    test: list[tuple[bytes, int]] | None = None,
) -> Reviews:
    """The splits of (text, label) pairs, sorted by content; `held_out` says from how many go into each split."""
    beyond = [text[:KEY] for text, _ in test or ()]
    order = by_content([text[:KEY] for text, _ in pairs], beyond)
    splits: dict[Split, list[tuple[bytes, int]]] = {}
    for split, n in held_out(len(order)).items():
        splits[split], order = [pairs[place] for place in order[:n]], order[n:]
    splits["train"] = [pairs[place] for place in order]
    if test is not None:
        splits["test"] = [test[place] for place in by_content(beyond)]
    return {
        split: (Documents.of([text for text, _ in part]), np.array([label for _, label in part], dtype=np.int64))
        for split, part in splits.items()
    }


def _of_folder(path: str) -> tuple[Reviews, str]:
    """The reviews in the official folder, and their SHA-256."""
    root = user_path(path)
    folders = [root / half / label for half in ("train", "test") for label in ("neg", "pos")]
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"imdb: {root} has no folder {folder.relative_to(root)}: is it the official aclImdb?")
    return _read(root, tuple(folder.stat().st_mtime_ns for folder in folders))


@lru_cache(maxsize=2)
def _read(path: Path, changed: tuple[int, ...]) -> tuple[Reviews, str]:
    halves: dict[str, list[tuple[bytes, int]]] = {}
    digest = hashlib.sha256()
    for half in ("train", "test"):
        halves[half] = []
        for label, folder in enumerate(("neg", "pos")):
            files = sorted((path / half / folder).glob("*.txt"))
            if not files:
                raise DataError(f"imdb: {path / half / folder} holds no .txt files")
            for file in files:
                text = read_bytes(file)
                if not text:
                    raise DataError(f"imdb: {file} is empty")
                halves[half].append((text, label))
                digest.update(f"{half} {label} {len(text)} ".encode() + text)
    held_out: dict[Split, int] = {"tune": HELD_OUT["tune"], "valid": HELD_OUT["valid"]}
    reviews = _cut(halves["train"], lambda total: {k: min(n, total // 10) for k, n in held_out.items()}, halves["test"])
    return _filled(reviews, path), digest.hexdigest()


@lru_cache(maxsize=2)
def _of_table(table: Table, name: str) -> Reviews:
    pairs = [(text.encode(), int(label)) for label, text in table.rows]
    return _filled(_cut(pairs, lambda total: {split: total * share // 100 for split, share in SHARES.items()}), name)


def _filled(reviews: Reviews, path: str | Path) -> Reviews:
    for split, (_, labels) in reviews.items():
        if not len(labels):
            raise DataError(
                f"imdb: {path} has too few different reviews: none is left for split {split!r}; give it 25 or more"
            )
    return reviews
