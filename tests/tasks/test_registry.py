"""Looking tasks up, building them, adding one; and that none of it loads torch or data."""

import subprocess
import sys

import numpy as np
import pytest

import tasks
from tasks.base import fingerprint
from zoo.registry import load_plugin
from zoo.types import Batch

PLUGIN = """
import numpy as np
from tasks import Metric, Task, register
from zoo.types import Batch, Shape

@register(about="Say what you see.")
class CopyBack(Task):
    role = "lm"
    metric = Metric("accuracy", True, 0.25)

    def __init__(self, *, length: int = 4) -> None:
        self.length = length

    shape = property(lambda self: Shape(length=self.length, vocab=4, outputs=4))
    fingerprint = property(lambda self: f"copy_back/1 length={self.length}")

    def count(self, split):
        return 5

    def examples(self, split, ids, seed):
        tokens = (ids[:, None] + np.arange(self.length)) % 4
        return Batch(inputs=tokens, targets=tokens)

    def baselines(self, limit=None):
        return []
"""


@pytest.fixture
def copy_back(tmp_path):
    file = tmp_path / "copy_back.py"
    file.write_text(PLUGIN)
    load_plugin(file)
    return tasks.build("copy_back", length=3)


def test_built_in_tasks_have_a_name_and_an_about():
    assert {"pixels", "mqar", "text"} <= set(tasks.names())
    assert all(tasks.get(name).make.name == name and tasks.get(name).about for name in tasks.names())


def test_a_plugin_file_adds_a_task(copy_back):
    entry = tasks.get("copy_back")
    assert (entry.about, [o.name for o in entry.options]) == ("Say what you see.", ["length"])
    assert copy_back.name == "copy_back"
    np.testing.assert_array_equal(copy_back.batch("test", 1, size=2).inputs, [[2, 3, 0], [3, 0, 1]])


def test_unknown_names_and_options_are_answered_with_the_nearest():
    with pytest.raises(KeyError, match="unknown task 'mqr'; did you mean 'mqar'"):
        tasks.get("mqr")
    with pytest.raises(TypeError, match="mqar has no option 'vocabs'; did you mean 'vocab'"):
        tasks.build("mqar", vocabs=3)
    with pytest.raises(TypeError, match="text has no option 'zzz'; known: corpus, length, path, tokens"):
        tasks.build("text", zzz=3)


def test_a_name_cannot_be_taken_twice_or_be_odd():
    class Other(tasks.Task):
        """Nothing."""

    with pytest.raises(ValueError, match="already registered"):
        tasks.register("text")(Other)
    with pytest.raises(ValueError, match="lower-case"):
        tasks.register("My-Task")(Other)


def test_epochs_are_shuffled_and_complete(copy_back):
    def epoch(number: int, seed: int) -> list[int]:
        return [int(copy_back._ids("train", 5 * number + i, seed, 1)[0]) for i in range(5)]

    assert sorted(epoch(0, 0)) == sorted(epoch(1, 0)) == [0, 1, 2, 3, 4]
    assert len({tuple(epoch(number, seed)) for number in range(3) for seed in range(3)}) > 5
    across = copy_back._ids("train", 0, 0, 10)
    assert across.tolist() == epoch(0, 0) + epoch(1, 0)


def test_totals_ignore_what_does_not_count(copy_back):
    torch = pytest.importorskip("torch")
    logits = torch.zeros(1, 2, 4)
    logits[0, 0, 2], logits[0, 1, 0] = float("inf"), float("-inf")
    logits[0, 0] = torch.tensor([0.0, 0.0, 9.0, 0.0])
    batch = Batch(inputs=[[0, 0]], targets=torch.tensor([[2, 0]]), counted=torch.tensor([[True, False]]))
    totals = copy_back.totals(logits, batch)
    assert totals["accuracy"] == (1.0, 1.0)
    assert totals["loss"] == (pytest.approx(3 * np.exp(-9), rel=1e-3), 1.0)


def test_fingerprint_names_every_part():
    assert fingerprint("a", 2, z=1, b="x") == "a/2 b=x z=1"


def test_describing_every_task_loads_neither_torch_nor_data():
    code = """
import sys, tasks
from tasks import corpora
for name in tasks.names():
    task = tasks.build(name)
    assert task.shape and task.fingerprint and task.metric and task.role
    [task.count(split) for split in ("train", "tune", "valid", "test")]
loaded = {"torch", "scipy", "sklearn", "pandas", "pyarrow", "pooch"} & set(sys.modules)
assert not loaded, loaded
assert corpora.load.cache_info().misses == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True)
