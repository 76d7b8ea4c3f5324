"""Pairs: dates against the standard library, files and what is wrong with them, scores against sacrebleu."""

from collections import Counter
from datetime import datetime

import numpy as np
import pytest

import tasks
from tasks.base import SPLITS, DataError, add_totals
from tasks.seq2seq.pairs import _compared
from zoo.types import Batch

FORMATS = ("%d %B %Y", "%B %d, %Y", "%A, %d %B %Y", "%A, %B %d, %Y", "%d %b %Y", "%a %b %d %Y", "%d.%m.%Y")


def texts(task, split):
    """Every pair of a split, read back from its tokens."""
    batch = task.examples(split, np.arange(task.count(split)), 0)
    left, right = (getattr(task._table, side) for side in ("source_symbols", "target_symbols"))

    def text(symbols):
        return bytes(symbols).decode() if task.tokens == "bytes" else "".join(map(chr, symbols))

    given = [text([left[t] for t in row[mask]]) for row, mask in zip(batch.inputs, batch.mask, strict=True)]
    wanted = [text([right[t - 2] for t in row if t > 1]) for row in batch.targets]
    return list(zip(given, wanted, strict=True))


def test_dates():
    task = tasks.build("pairs")
    pairs = [pair for split in SPLITS for pair in texts(task, split)]
    assert len({iso for _, iso in pairs}) == len(pairs) == 36_525
    seen = Counter()
    for source, iso in pairs[::7]:
        for form in FORMATS:
            try:
                assert datetime.strptime(source, form).date().isoformat() == iso
            except ValueError:
                continue
            seen[form] += 1
            break
    assert sum(seen.values()) == len(pairs[::7])
    assert all(600 < seen[form] < 900 for form in FORMATS), seen  # May is its own short form, and counts for the long
    assert (task.shape.length, task.shape.target_length, task.dropped) == (29, 11, 0)


@pytest.fixture
def file(tmp_path):
    def write(content, name="pairs.tsv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


LINES = [(f"söurce {n % 300}", f"tàrget {n}") for n in range(600)]


@pytest.mark.parametrize("tokens", ["characters", "bytes"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "".join(f"{s}\t{t}\n" for s, t in LINES)),
        ("b.txt", "\ufeff" + "\r\n".join(f"{s}\t{t}" for s, t in [*LINES, LINES[0]])),
        ("c.csv", "".join(f'"{s}",{t}\n' for s, t in LINES)),
        ("d.csv", "Target,source\n" + "".join(f'{t},"{s}"\n' for s, t in LINES)),
    ],
)
def test_every_pair_of_a_file_is_in_one_split_and_a_source_stays_in_one(file, tokens, name, content):
    task = tasks.build("pairs", path=file(content, name), tokens=tokens)
    found = {split: texts(task, split) for split in SPLITS}
    assert Counter(pair for pairs in found.values() for pair in pairs) == Counter(LINES)
    splits = [{source for source, _ in pairs} for pairs in found.values()]
    assert sum(map(len, splits)) == 300
    assert task.shape.vocab == (256 if tokens == "bytes" else len(set("".join(s for s, _ in LINES))))
    assert task.shape.length == (10 if tokens == "characters" else 11)


def test_long_pairs_are_dropped_and_counted(file):
    task = tasks.build("pairs", path=file("".join(f"{s}\t{t}\n" for s, t in LINES)), longest=9)
    assert task.dropped == 500  # 7 letters and a number from 100 on
    assert sum(task.count(split) for split in SPLITS) == 100
    assert task.shape.length == 9


@pytest.mark.parametrize("tokens", ["characters", "bytes"])
def test_scores_are_those_of_sacrebleu(tokens):
    sacrebleu = pytest.importorskip("sacrebleu")
    task = tasks.build("pairs", tokens=tokens)
    batch = task.batch("test", 0, size=3)
    references = [pair[1] for pair in texts(task, "test")[:3]]
    symbols = list(task._table.target_symbols)
    written = [references[0], references[1][:4], "2001-01-01"]
    totals = task.scores(task.decoded([[symbols.index(ord(c)) + 2 for c in text] for text in written], batch))
    single = [sacrebleu.CHRF()] * 3
    expected = [c.sentence_score(own, [r]).score for c, own, r in zip(single, written, references, strict=True)]
    assert totals["chrf"] == pytest.approx(np.mean(expected))
    assert totals["bleu"] == pytest.approx(sacrebleu.corpus_bleu(written, [references]).score)
    assert set(totals) == {"chrf", "bleu", "exact"}
    assert totals["exact"] == pytest.approx(np.mean([own == r for own, r in zip(written, references, strict=True)]))
    assert task.scores(task.decoded([[]] * 3, batch)) == {"chrf": 0.0, "bleu": 0.0, "exact": 0.0}
    right = [[token for token in row if token > 1] for row in batch.targets.tolist()]
    assert task.scores(task.decoded(right, batch)) == pytest.approx({"chrf": 100.0, "bleu": 100.0, "exact": 1.0})


def test_bleu_is_that_of_the_corpus_however_it_is_cut_into_batches():
    sacrebleu = pytest.importorskip("sacrebleu")
    written = ["the cat sat on the mat now", "a b", "dog ran home", "she said that it was all the same to her"]
    wanted = ["the cat sat on a mat", "a b c d", "the dog ran far home", "she said it was all the same to him"]
    task, totals = tasks.build("pairs"), {}
    for part in (slice(0, 1), slice(1, 4)):
        totals = add_totals(totals, _compared(written[part], wanted[part]))
    assert task.scores(totals)["bleu"] == pytest.approx(sacrebleu.corpus_bleu(written, [wanted]).score)


def test_nonsense_can_be_scored():
    for tokens in ("characters", "bytes"):
        task = tasks.build("pairs", tokens=tokens)
        batch: Batch = task.batch("test", 0, size=1)
        assert task.decoded([[0] * 5], batch)["exact"] == (0.0, 1.0)
        assert task.decoded([list(range(2, task.shape.outputs))], batch)["exact"] == (0.0, 1.0)


def test_baselines():
    pytest.importorskip("sacrebleu")
    values = {b.name: b.value for b in tasks.build("pairs").baselines(limit=300)}
    assert 0 < values["constant"] < values["neighbour"] < 80
    assert 10 < values["copy"] < 50


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "p.tsv", "pairs: p.tsv is empty"),
        ("a b\tc\nd\n", "p.tsv", "pairs: p.tsv, row 2, column target: it is empty"),
        ("a b\tc\n", "p.tsv", "has 1 pairs of at most 128 characters .0 longer ones left out., none of them in split"),
        (" " * 129 + "\tb\n", "p.tsv", "has 0 pairs of at most 128 characters .1 longer ones left out., none"),
    ],
)
def test_bad_files_are_answered_in_one_line(file, content, name, message):
    with pytest.raises(DataError, match=message) as caught:
        tasks.build("pairs", path=file(content, name))
    assert "\n" not in str(caught.value)
