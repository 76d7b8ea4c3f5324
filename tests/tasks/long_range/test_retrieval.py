"""Pairs of passages: from the pages they should be from, disjoint, balanced; the official files, and bad ones."""

import html
import re

import numpy as np
import pytest

import tasks
from tasks import DataError, corpora

SPLITS = tasks.base.SPLITS


@pytest.fixture(scope="module")
def pages() -> list[bytes]:
    content = corpora.load(corpora.get("wikipedia_xml"))
    texts = re.findall(r"<text[^>]*>(.*?)</text>", content.decode(), flags=re.DOTALL)
    return [html.unescape(text).encode() for text in texts if len(html.unescape(text).encode()) >= 11_000]


def documents(batch) -> tuple[list[bytes], list[bytes]]:
    first, second = (
        [bytes((row[valid] - 1).tolist()) for row, valid in zip(inputs, mask, strict=True)]
        for inputs, mask in ((batch.inputs, batch.mask), (batch.inputs2, batch.mask2))
    )
    return first, second


def test_passages_lie_where_they_should(pages):
    assert len(pages) == 83
    length = 512
    task = tasks.build("retrieval", length=length)
    used: dict[str, set[int]] = {}
    for split in SPLITS:
        batch = task.examples(split, np.arange(60), 0)
        assert batch.targets.reshape(-1, 2).sum(axis=1).tolist() == [1] * 30
        homes: set[int] = set()
        for one, other, label in zip(*documents(batch), batch.targets, strict=True):
            assert len(one) == len(other) == length
            of_one, of_other = ([i for i, page in enumerate(pages) if part in page] for part in (one, other))
            assert bool(set(of_one) & set(of_other)) == (label == 1)
            # Two pages quote one long address.
            homes |= {places[0] for places in (of_one, of_other) if len(places) == 1}
            assert one in pages[of_one[0]][1000:-2000]
            assert other in pages[of_other[0]][1000:-2000]
            if label == 1:
                page = pages[of_one[0]]
                assert abs(page.index(one) - page.rindex(other)) >= length
        used[split] = homes
    assert sum(map(len, used.values())) == len(set().union(*used.values()))
    assert len(used["test"]) == 13
    assert len(used["tune"]) == 8


def test_places_tell_nothing(pages):
    """Where a passage starts, as a share of what its page has room for, is distributed alike for both labels."""
    task = tasks.build("retrieval", length=2000)
    ids = np.arange(4000)
    from tasks.long_range.retrieval import _pages

    held = _pages(corpora.get("wikipedia_xml"))
    labels, chosen, at = task._drawn(held, "train", ids, 0)
    assert ((chosen[:, 0] == chosen[:, 1]) == (labels == 1)).all()
    assert (np.abs(at[:, 0] - at[:, 1])[labels == 1] >= 2000).all()
    share = (at - 1000) / (held.sizes[chosen] - 5000)
    assert share.min() >= 0
    assert share.max() <= 1
    for column in share.T:
        deciles = [np.histogram(column[labels == label], bins=10, range=(0, 1))[0] for label in (0, 1)]
        chi2 = ((deciles[0] - deciles[1]) ** 2 / (deciles[0] + deciles[1])).sum()
        assert chi2 < 27.9  # p = .001


def test_baselines(pages):
    found = {b.name: b.value for b in tasks.build("retrieval", length=512).baselines()}
    assert found["majority"] == 0.5
    assert 0.69 < found["word overlap"] < 0.77


@pytest.fixture
def official(tmp_path):
    """Pairs of texts that share a word if they are related; one training pair is also a test pair."""
    for name, n in (("train", 200), ("eval", 6), ("test", 8)):
        rows = [
            f"{i % 2}.0\ta{i}\tb{i}\t{name} word{i}x same\t{name} {'word' if i % 2 else 'other'}{i}x" for i in range(n)
        ]
        if name == "train":
            rows.append("1.0\tx\ty\ttest word1x same\ttest word1x")
        (tmp_path / f"new_aan_pairs.{name}.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_the_official_files(official):
    task = tasks.build("retrieval", length=24, path=str(official))
    assert [task.count(split) for split in SPLITS] == [198, 2, 6, 8]
    seen = []
    for split in SPLITS:
        batch = task.examples(split, np.arange(task.count(split)), 0)
        first, second = documents(batch)
        file = {"tune": b"train", "valid": b"eval"}.get(split, split.encode())
        for one, other, label in zip(first, second, batch.targets, strict=True):
            assert one.startswith(file + b" word")
            assert other.startswith(file)
            assert (other.split()[1] == one.split()[1]) == (label == 1)
        seen += list(zip(first, second, strict=True))
    assert len(seen) == len(set(seen)) == 214


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "new_aan_pairs.eval.tsv is empty"),
        ("1.0\ta\tb\ttext\n", "eval.tsv, line 1: expected label, id1, id2, text1, text2 between tabs, found 4 columns"),
        ("1\ta\tb\tc\td\n2\ta\tb\tc\td\n", "eval.tsv, line 2: the label must be 0 or 1, got '2'"),
        ("1\ta\tb\t\td\n", "eval.tsv, line 1: a text is empty"),
    ],
)
def test_bad_files(official, content, message):
    (official / "new_aan_pairs.eval.tsv").write_text(content)
    with pytest.raises(DataError, match=message):
        tasks.build("retrieval", path=str(official)).count("test")
    (official / "new_aan_pairs.eval.tsv").unlink()
    with pytest.raises(DataError, match=r"new_aan_pairs.eval.tsv does not exist"):
        tasks.build("retrieval", path=str(official))
