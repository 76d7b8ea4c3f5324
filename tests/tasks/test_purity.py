"""Examples are the same bytes as ever, and splits share none. The rest is asked by `tasks.checks`, of every task."""

import json
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

import tasks
from tasks.base import SPLITS
from zoo.types import Batch

CASES = [
    (case["task"], case["options"], case["hash"])
    for file in sorted((Path(__file__).parent / "golden").glob("*.json"))
    for case in json.loads(file.read_text())
]
"""Tasks with options, and the hash of some of their examples: a file for each family."""


def rows(batch: Batch) -> list[bytes]:
    """Each example's bytes."""
    arrays = [np.asarray(array) for array in batch.arrays().values()]
    return [b"".join(array[i].tobytes() for array in arrays) for i in range(len(batch))]


@pytest.mark.parametrize(("name", "options", "expected"), CASES)
def test_golden(name, options, expected):
    """Change these only together with the version in the task's fingerprint."""
    task, state = tasks.build(name, **options), blake2b(digest_size=8)
    for split in SPLITS:
        for row in rows(task.examples(split, np.array([0, 1, 17]), 3)):
            state.update(row)
    assert state.hexdigest() == expected


def test_every_task_has_a_golden_hash():
    assert {name for name, _, _ in CASES} == {
        n for n in tasks.names() if tasks.get(n).make.__module__.startswith("tasks.")
    }


@pytest.mark.parametrize(("name", "options"), [case[:2] for case in CASES])
@pytest.mark.with_all
def test_splits_share_no_example(name, options):
    """All held out, and two seeds of training; with the options of `smoke`, `tasks.checks` asks it of every task."""
    task = tasks.build(name, **options)
    held_out = {split: set(rows(task.examples(split, np.arange(task.count(split)), 0))) for split in SPLITS[1:]}
    train = {
        row for seed in (0, 1) for row in rows(task.examples("train", np.arange(task.count("train") or 5000), seed))
    }
    everything = [train, *held_out.values()]
    assert sum(map(len, everything)) == len(set().union(*everything))
