"""Two documents, encoded apart: do they belong together?"""

import hashlib
import html
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tasks import corpora
from tasks.base import Baseline, DataError, Ids, Metric, Split, Task, difficulty, fingerprint, whole
from tasks.baselines import accuracy, commonest
from tasks.corpora import Card
from tasks.draws import Draws
from tasks.long_range.documents import VOCAB, Documents, by_content
from tasks.registry import register
from zoo.files import open_regular, user_path
from zoo.types import Batch, Shape

LONGEST = 4000
SKIPPED = (1000, 2000)
"""Bytes left out at the beginning and the end of a page."""
PAGES: dict[Split, tuple[int, int]] = {"train": (0, 53), "tune": (53, 61), "valid": (61, 70), "test": (70, 83)}
"""The places of each split among the long enough pages, sorted by content hash."""
HELD_OUT: dict[Split, int] = {"tune": 500, "valid": 1000, "test": 2000}
FILES: dict[Split, str] = {"train": "train", "tune": "train", "valid": "eval", "test": "test"}
SEEN = 2000
"""Training pairs that the baseline's threshold is fitted on."""


@register(
    paper="Tay et al. 2020, Long Range Arena, arXiv:2011.04006, section 2.2.3; Radev et al. 2013, The ACL Anthology "
    "Network Corpus",
    source="https://github.com/google-research/long-range-arena (lra_benchmarks/matching/input_pipeline.py)",
    deviations=(
        "without `path`, passages of Wikipedia pages take the place of the Anthology's papers: scores do not compare",
        "with `path`, tune is held out of the training pairs, and pairs that are in valid or test are left out of it",
    ),
)
class Retrieval(Task):
    """Are two texts related (1) or not (0)? A model sees one at a time.

    Without `path`: two passages of `length` bytes from one page of Wikipedia (1) or from two pages (0). Of pairs 2k
    and 2k+1 one is of either kind. The pages are the 83 of `wikipedia_xml` with 11,000 bytes or more of wiki markup
    (XML's entities decoded), 53 in train, 8, 9 and 13 in tune, valid and test; no page is in two splits. Passages
    leave out a page's first 1,000 and last 2,000 bytes: title, infobox, categories. Two passages of one page do not
    overlap, each may come first, and those of two pages lie as those of one do, so that places tell nothing. What is
    left to go by is what a page is about (names and words that come again) and its manner (dates, tables, citations);
    a few pages quote the same source or navigation box, a hundred bytes or so.
    13 pages are few: a score on test is about those 13.

    inputs, inputs2 (B, T): 0 where padded, byte b is b + 1. mask, mask2 the same shape. targets (B,).

    Args:
        length: T, per document. Without `path` at most 4,000.
        path: a folder with the official new_aan_pairs.train.tsv, .eval.tsv and .test.tsv, of which every line is label
            (0 or 1), id1, id2, text1, text2. The files are
            hashed when the task is built; `length` bytes of each text are kept in memory. Pairs are equal if these are.

    Raises:
        DataError: a file in the folder `path` is absent, empty, or has a line that is not so.
    """

    role = "retrieve"
    metric = Metric("accuracy", higher_is_better=True, chance=0.5)
    difficulties: ClassVar = {
        "smoke": difficulty({"length": 128}, 50_000, tokens=200_000, lr=2e-3, batch_tokens=2048, depth=2, heads=2),
        "small": difficulty({"length": 512}, 200_000, tokens=5_000_000, lr=1e-3, batch_tokens=8192, depth=4, heads=4),
        "paper": difficulty(
            {"length": 4000},
            790_000,
            steps=5000,
            lr=5e-4,
            batch_tokens=128_000,
            train={"weight_decay": 0.1},
            depth=4,
            heads=4,
        ),
    }

    def __init__(self, *, length: int = 512, path: str | None = None) -> None:
        self.length = whole("retrieval", "length", length)
        self._cards: dict[Split, Card] = {}
        if path is not None:
            folder = user_path(path)
            self._cards = {
                split: corpora.of_file(folder / f"new_aan_pairs.{name}.tsv") for split, name in FILES.items()
            }
            content = hashlib.sha256("".join(str(card.sha256) for card in self._cards.values()).encode()).hexdigest()
        else:
            content = str(corpora.get("wikipedia_xml").sha256)
            if length > LONGEST:
                raise ValueError(
                    f"retrieval: length must be at most {LONGEST} (half of the shortest page), got {length}"
                )
        self.shape = Shape(length=length, vocab=VOCAB, outputs=2)
        self.fingerprint = fingerprint("retrieval", 1, content=content, length=length)

    def count(self, split: Split) -> int | None:
        if self._cards:
            return len(self._pairs[split][1])
        return None if split == "train" else HELD_OUT[split]

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        if self._cards:
            documents, labels = self._pairs[split]
            labels, texts = labels[ids], 2 * ids[:, None] + np.arange(2)
            skipped = np.zeros_like(texts)
        else:
            documents = _pages(corpora.get("wikipedia_xml"))
            labels, texts, skipped = self._drawn(documents, split, ids, seed if split == "train" else 0)
        inputs, mask = documents.tokens(texts[:, 0], self.length, skipped[:, :1])
        inputs2, mask2 = documents.tokens(texts[:, 1], self.length, skipped[:, 1:])
        return Batch(inputs=inputs, targets=labels, mask=mask, inputs2=inputs2, mask2=mask2)

    def _drawn(self, pages: Documents, split: Split, ids: Ids, seed: int) -> tuple[Ids, Ids, Ids]:
        """Labels (N,), the page of either passage and where it begins there, both (N, 2)."""

        def draws(what: str) -> Draws:
            return Draws("retrieval", split, seed, what)

        labels = (draws("labels").integers(ids // 2, 1, 0, 2)[:, 0] + ids) % 2
        begin, end = PAGES[split]
        chosen = begin + draws("pages").sample(ids, end - begin, 2)
        chosen[:, 1] = np.where(labels == 1, chosen[:, 0], chosen[:, 1])
        room = pages.sizes[chosen] - sum(SKIPPED) - 2 * self.length + 1
        # Either page draws where two passages of it would lie; a pair of one page has both from the same draw.
        spread = np.sort((draws("places").uniform(ids, 4).reshape(-1, 2, 2)), axis=2)
        spread[:, 1] = np.where(labels[:, None] == 1, spread[:, 0], spread[:, 1])
        second = (draws("order").integers(ids, 1, 0, 2) + np.arange(2)) % 2
        at = (np.take_along_axis(spread, second[:, :, None], axis=2)[:, :, 0] * room).astype(np.int64)
        return labels, chosen, SKIPPED[0] + at + second * self.length

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """A guess, and how many words the two have in common."""
        known = min(self.count("train") or SEEN, SEEN)
        train = self.examples("train", np.arange(known), 0)
        test = self.examples("test", self.evaluation_ids("test", limit), 0)
        overlaps = _overlaps(train)
        thresholds = np.unique(np.append(overlaps, -1))
        right = ((overlaps > thresholds[:, None]) == train.targets).sum(axis=1)
        threshold = thresholds[right.argmax()]
        how = f"related if the words' Jaccard index exceeds {threshold:.3f}, fitted on {known:,} training pairs"
        return [
            accuracy("majority", commonest(train.targets), test.targets, "always the commoner label in training"),
            accuracy("word overlap", _overlaps(test) > threshold, test.targets, how),
        ]

    @property
    def _pairs(self) -> dict[Split, tuple[Documents, Ids]]:
        """Texts, of which 2i and 2i + 1 are pair i, and the labels of pairs."""
        return _of_files(self._cards["train"], self._cards["valid"], self._cards["test"], self.length)


def _overlaps(batch: Batch) -> NDArray[np.float64]:
    """The Jaccard index of the words (runs of letters, lower case, four or more) of the two documents of each pair."""

    def words(tokens: Ids) -> list[set[bytes]]:
        texts = (row[row > 0].astype(np.uint8) - np.uint8(1) for row in tokens)
        return [set(re.findall(rb"[a-z]{4,}", text.tobytes().lower())) for text in texts]

    both = zip(words(batch.inputs), words(batch.inputs2), strict=True)
    return np.array([len(one & other) / max(len(one | other), 1) for one, other in both])


@lru_cache(maxsize=1)
def _pages(card: Card) -> Documents:
    """The text of every page that is long enough, sorted by content hash."""
    found = re.findall(rb"<text[^>]*>(.*?)</text>", corpora.load(card), flags=re.DOTALL)
    texts = [html.unescape(text.decode()).encode() for text in found]
    texts = [text for text in texts if len(text) >= sum(SKIPPED) + 2 * LONGEST]
    return Documents.of([texts[place] for place in by_content(texts)])


@lru_cache(maxsize=1)
def _of_files(train: Card, valid: Card, test: Card, length: int) -> dict[Split, tuple[Documents, Ids]]:
    """The pairs of the official files; tune is a hundredth of train, at most 500."""
    held_out = {"valid": _read(valid, length), "test": _read(test, length)}
    excluded = [_key(row) for rows in held_out.values() for row in rows]
    rows = _read(train, length)
    order = by_content([_key(row) for row in rows], excluded)
    n = min(HELD_OUT["tune"], max(1, len(order) // 100))
    if len(order) < 2:
        raise DataError(f"retrieval: {train.name} has fewer than 2 pairs that are in neither of the other files")
    parts = {"train": [rows[place] for place in order[n:]], "tune": [rows[place] for place in order[:n]], **held_out}
    return {split: _packed(parts[split]) for split in FILES}


def _packed(rows: list[tuple[int, bytes, bytes]]) -> tuple[Documents, Ids]:
    texts = [text for _, one, other in rows for text in (one, other)]
    return Documents.of(texts), np.array([label for label, _, _ in rows], dtype=np.int64)


def _key(row: tuple[int, bytes, bytes]) -> bytes:
    """What makes a pair itself."""
    return b"".join(blake2b(text, digest_size=16).digest() for text in row[1:])


def _read(card: Card, length: int) -> list[tuple[int, bytes, bytes]]:
    """Label and the first `length` bytes of two texts of every line."""
    path = card.sources[0].find()
    if path is None:
        raise DataError(f"retrieval: {card.sources[0].advice()}")
    with open_regular(path) as lines:
        return list(_rows(card.name, lines, length))


def _rows(name: str, lines: Iterable[bytes], length: int) -> Iterator[tuple[int, bytes, bytes]]:
    for number, line in enumerate(lines, 1):
        cells = line.rstrip(b"\r\n").split(b"\t")
        where = f"retrieval: {name}, line {number}"
        if len(cells) != 5:
            raise DataError(f"{where}: expected label, id1, id2, text1, text2 between tabs, found {len(cells)} columns")
        if cells[0] not in (b"0", b"1", b"0.0", b"1.0"):
            raise DataError(f"{where}: the label must be 0 or 1, got {cells[0][:40].decode(errors='replace')!r}")
        if not cells[3] or not cells[4]:
            raise DataError(f"{where}: a text is empty")
        yield int(float(cells[0])), cells[3][:length], cells[4][:length]
