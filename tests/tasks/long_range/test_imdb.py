"""Reviews: the bytes of the corpus, cut into splits by content; files of the user's, and what is said of bad ones."""

import csv
import io

import numpy as np
import pytest

import tasks
from tasks import DataError, corpora


@pytest.fixture(scope="module")
def reviews() -> dict[bytes, set[int]]:
    """Labels under each text of the corpus."""
    content = corpora.load(corpora.get("imdb_25k")).decode()
    labels: dict[bytes, set[int]] = {}
    for row in csv.DictReader(io.StringIO(content, newline="")):
        if row["source"] == "imdb":
            labels.setdefault(row["text"].encode(), set()).add(int(row["label"]))
    return labels


def texts(batch) -> list[bytes]:
    assert not np.asarray(batch.inputs)[~batch.mask].any()
    return [bytes((row[valid] - 1).tolist()) for row, valid in zip(batch.inputs, batch.mask, strict=True)]


def test_every_example_is_a_review_and_every_review_one_example(reviews):
    task = tasks.build("imdb", length=64)
    longest = {text[:64]: set() for text in reviews}
    for text, labels in reviews.items():
        longest[text[:64]] |= labels
    seen = []
    for split in tasks.base.SPLITS:
        batch = task.examples(split, np.arange(task.count(split)), 0)
        assert 0.48 < batch.targets.mean() < 0.52
        found = texts(batch)
        assert all(label in longest[text] for text, label in zip(found, batch.targets, strict=True))
        seen += found
    assert len(seen) == len(set(seen)) == len(longest) == 24_875


def test_length_changes_how_much_is_read_only(reviews):
    one, other = (tasks.build("imdb", length=length).examples("test", np.arange(50), 0) for length in (64, 4000))
    np.testing.assert_array_equal(one.inputs, other.inputs[:, :64])
    np.testing.assert_array_equal(one.targets, other.targets)
    assert all(text in reviews for text in texts(other) if len(text) < 4000)


def test_baselines(reviews):
    found = {b.name: b.value for b in tasks.build("imdb", length=256).baselines()}
    assert found["majority"] == pytest.approx(0.5, abs=0.02)
    assert 0.74 < found["bag of words"] < 0.79


TABLE = "label,text\n" + "".join(f'{i % 2},"review {i}, so {"good" if i % 2 else "bad"}"\n' for i in range(100))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", TABLE),
        ("b.tsv", TABLE.replace(",", "\t", 1).replace(',"', '\t"')),
        ("c.csv", "".join(TABLE.splitlines(keepends=True)[1:])),
        ("d.csv", "text,id,label\n" + "".join(f"{x[2:]},7,{x[0]}\n" for x in TABLE.splitlines()[1:])),
    ],
)
def test_a_table_of_the_users(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    task = tasks.build("imdb", length=64, path=str(tmp_path / name))
    assert [task.count(split) for split in tasks.base.SPLITS] == [80, 4, 6, 10]
    everything = {}
    for split in tasks.base.SPLITS:
        batch = task.examples(split, np.arange(task.count(split)), 0)
        everything |= dict(zip(texts(batch), batch.targets.tolist(), strict=True))
    assert everything == {f"review {i}, so {'good' if i % 2 else 'bad'}".encode(): i % 2 for i in range(100)}
    found = {b.name: b.value for b in task.baselines()}
    assert found["bag of words"] == 1.0
    assert task.fingerprint != tasks.build("imdb", length=64).fingerprint


def test_the_official_folder(tmp_path):
    for half in ("train", "test"):
        for label in ("neg", "pos"):
            (tmp_path / half / label).mkdir(parents=True)
            for i in range(20):
                (tmp_path / half / label / f"{i}_1.txt").write_text(f"{half} {label} {i}")
    (tmp_path / "train" / "neg" / "0_1.txt").write_text("test pos 0")  # also in test, so not in training
    task = tasks.build("imdb", length=64, path=str(tmp_path))
    assert [task.count(split) for split in tasks.base.SPLITS] == [33, 3, 3, 40]
    for split in tasks.base.SPLITS:
        batch = task.examples(split, np.arange(task.count(split)), 0)
        for text, label in zip(texts(batch), batch.targets, strict=True):
            assert text.split()[:2] == [b"test" if split == "test" else b"train", (b"neg", b"pos")[label]]
    (tmp_path / "test" / "neg" / "3_1.txt").write_text("")
    (tmp_path / "test" / "neg" / "new.txt").write_text("so that the folder changes")
    with pytest.raises(DataError, match=r"3_1.txt is empty"):
        tasks.build("imdb", path=str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "reviews.csv is empty"),
        ("label,text\n", "holds no rows"),
        ("0,bad\n2,odd\n", "row 2, column label: it must be 0 or 1, got '2'"),
        ("0,bad\n1,good\n", "too few different reviews: none is left for split 'tune'; give it 25 or more"),
    ],
)
def test_bad_tables(tmp_path, content, message):
    file = tmp_path / "reviews.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as error:
        tasks.build("imdb", path=str(file))
    assert "reviews.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_paths(tmp_path):
    with pytest.raises(DataError, match=r"imdb: .*x.csv cannot be read: No such file or directory"):
        tasks.build("imdb", path=str(tmp_path / "x.csv"))
    with pytest.raises(DataError, match="has no folder train/neg: is it the official aclImdb"):
        tasks.build("imdb", path=str(tmp_path))
