"""Windows over a text: what is a target, which splits, which errors, and how predictions are scored."""

import numpy as np
import pytest

import tasks
from tasks import DataError
from tasks.base import SPLITS


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my.txt"
    path.write_bytes(bytes(range(256)) * 8)
    return path


def test_every_byte_of_a_split_is_a_target_once(file):
    task, data = tasks.build("text", path=str(file), length=10), file.read_bytes()
    stretches = {"train": data[:1843], "tune": data[1843:1884], "valid": data[1884:1945], "test": data[1945:]}
    for split in SPLITS:
        batch = task.examples(split, np.arange(task.count(split)), 0)
        targets = batch.targets.astype(np.uint8).tobytes()
        assert targets == stretches[split][1 : 1 + len(targets)]
        assert len(stretches[split]) - 1 - len(targets) < 10
        np.testing.assert_array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])
        assert batch.inputs.dtype == batch.targets.dtype == np.int64


def test_a_path_is_known_by_its_content(file, tmp_path, monkeypatch):
    copy = tmp_path / "copy.txt"
    copy.write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    first = tasks.build("text", path=str(file), length=10).fingerprint
    assert tasks.build("text", path="copy.txt", length=10).fingerprint == first
    copy.write_bytes(file.read_bytes()[::-1])
    assert tasks.build("text", path="copy.txt", length=10).fingerprint != first


def test_a_file_that_changes_under_the_task_is_refused(file):
    task = tasks.build("text", path=str(file), length=10)
    file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(DataError, match="expected 2048 bytes"):
        task.examples("train", np.arange(1), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "nosuch.txt"}, "nosuch.txt does not exist"),
        ({"path": "."}, "is a folder"),
        ({"path": "empty.txt"}, "empty.txt is empty"),
        ({"path": "my.txt", "length": 200}, "my.txt has 2048 bytes, 41 of them in split 'tune'"),
    ],
)
def test_errors_are_one_line(file, monkeypatch, options, message):
    monkeypatch.chdir(file.parent)
    (file.parent / "empty.txt").touch()
    with pytest.raises(DataError, match=message) as raised:
        tasks.build("text", **options)
    assert "\n" not in str(raised.value)


def test_baselines_follow_the_limit(file):
    task = tasks.build("text", path=str(file), length=10)
    few, all_ = task.baselines(limit=2), task.baselines()
    assert [b.name for b in few] == [b.name for b in all_] == ["unigram", "bigram", "trigram", "5-gram", "xz"]
    values = [b.value for b in all_]
    assert values[0] == pytest.approx(8.0, abs=0.1)
    assert values[0] > values[1]
    assert [b.value for b in few][-1] == values[-1]


def test_wikipedia_against_known_values():
    """A trigram model at 3.2 and a 5-gram model at 2.35 bits per byte, on 128 test examples."""
    from tasks.baselines import ngram_bits

    task = tasks.build("text")
    data = task._data
    ids = task.evaluation_ids("test", 128)
    places = task._span("test")[0] + ids[:, None] * 128 + np.arange(1, 129)
    bits = ngram_bits(data[: task._span("train")[1]], data, places.ravel(), 5).mean(axis=1)
    np.testing.assert_allclose(bits[[1, 2, 4]], [3.9, 3.2, 2.35], atol=0.12)
