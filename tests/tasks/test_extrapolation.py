"""Every task can be scored at multiples of its length: other examples, other names, the same training."""

import numpy as np
import pytest
import torch

import tasks
from tasks.base import add_totals, scores


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(np.random.default_rng(0).integers(97, 101, 40_000, dtype=np.uint8).tobytes())
    return lambda **options: tasks.build("text", path=str(path), length=8, **options)


def scored(task, split, limit, logits_of):
    totals = {}
    for batch in task.evaluation(split, size=12, limit=limit):
        totals = add_totals(totals, task.totals(logits_of(batch), batch))
    return totals


def test_training_is_the_same_and_held_out_examples_are_longer(task):
    short, long = task(), task(extrapolate=[2, 4])
    assert torch.equal(short.batch("train", 3, 1).inputs, long.batch("train", 3, 1).inputs)
    assert (long.train_length, long.shape.length) == (8, 32)
    widths = [batch.inputs.shape for batch in long.evaluation("test", size=16, limit=64)]
    assert {shape[1] for shape in widths} == {8, 16, 32}
    steps = {w: sum(rows for rows, width in widths if width == w) * w for w in (8, 16, 32)}
    assert set(steps.values()) == {512}
    assert long.fingerprint == short.fingerprint + " extrapolate=1,2,4"


def test_each_length_has_a_score_of_its_own_and_the_longest_ranks(task):
    """A model that is sure of the right byte up to step 8 and guesses behind it: half right at 2x, a quarter at 4x."""
    long = task(extrapolate=[4, 2])
    assert long.metric.name == "bits_per_byte@4x"

    def forgetful(batch):
        sure = torch.nn.functional.one_hot(batch.targets, 256).double() * 50
        return torch.where(torch.arange(batch.inputs.shape[1])[:, None] < 8, sure, 0.0)

    found = scores(scored(long, "valid", 32, forgetful))
    assert found["bits_per_byte"] == pytest.approx(0, abs=1e-6)
    assert found["bits_per_byte@2x"] == pytest.approx(4)
    assert found["bits_per_byte@4x"] == pytest.approx(6)


def test_baselines_are_those_of_the_longest(task):
    long = task(extrapolate=[2])
    assert long.baselines(64) == tasks.build(**{"name": "text", **long.at[2].options}).baselines(32)


def test_totals_add_up_whatever_a_batch_counts():
    assert add_totals({"a": (1, 2), "b": (1, 1)}, {"b": (2, 3), "c": (4, 5)}) == {"a": (1, 2), "b": (3, 4), "c": (4, 5)}
