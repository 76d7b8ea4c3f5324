"""Which tokens are hidden and how, against the rule of BERT; the baselines, against Bayes' rule written out."""

import math
from itertools import pairwise

import numpy as np
import pytest

import tasks
from tasks.base import in_epochs, scores


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "my.txt"
    path.write_bytes(bytes(np.random.default_rng(0).integers(97, 101, 4000, dtype=np.uint8)))
    return tasks.build("masked_text", path=str(path), length=20, tokens="characters")


def test_windows_are_shown_but_for_the_places_that_count(task):
    batch = task.examples("valid", np.arange(task.count("valid")), 0)
    stream = task._stream("valid")
    assert batch.counted.sum(1).tolist() == [3] * 6
    for row in range(6):
        window = stream[20 * row : 20 * row + 20]
        counted = batch.counted[row]
        np.testing.assert_array_equal(batch.inputs[row][~counted], window[~counted])
        np.testing.assert_array_equal(batch.targets[row], np.where(counted, window, 0))
    assert (task.shape.vocab, task.shape.outputs, task.shape.length) == (5, 4, 20)


def test_masked_replaced_and_left(task):
    batch = task.examples("train", np.arange(20_000), 0)
    shown, targets = batch.inputs[batch.counted], batch.targets[batch.counted]
    share = np.mean(shown == 4), np.mean(shown == targets)
    np.testing.assert_allclose(share, [0.8, 0.1 + 0.1 / 4], atol=0.005)
    np.testing.assert_allclose(batch.counted.mean(0), np.full(20, 0.15), atol=0.01)


def test_an_epoch_shows_every_window_once_and_the_next_masks_elsewhere(task):
    total = task._windows("train")
    assert total == 180
    assert task.count("train") is None
    first, second = (in_epochs("masked_text", 7, np.arange(e * total, (e + 1) * total), total) for e in (0, 1))
    assert sorted(first) == sorted(second) == list(range(total))
    assert first.tolist() != second.tolist()
    ids = [int(np.flatnonzero(first == 5)[0]), total + int(np.flatnonzero(second == 5)[0])]
    one, other = task.examples("train", np.array(ids), 7).counted
    assert one.tolist() != other.tolist()


def test_a_uniform_guess_costs_two_bits_for_four_letters(task):
    torch = pytest.importorskip("torch")
    batch = task.batch("test", 0, size=4)
    logits = torch.zeros(4, 20, 4)
    assert scores(task.totals(logits, batch))["bits_per_masked_byte"] == pytest.approx(2.0) == task.metric.chance
    right = 50 * torch.nn.functional.one_hot(batch.targets, 4).float()
    right[~batch.counted] = 0
    assert scores(task.totals(right, batch))["bits_per_masked_byte"] == pytest.approx(0, abs=1e-6)


def test_baselines_are_bayes_rule(task):
    train = task._stream("train").astype(int).tolist()
    alone = [(train.count(t) + 1) / (len(train) + 4) for t in range(4)]

    def after(a: int, b: int) -> float:
        following = [y for x, y in pairwise(train) if x == a]
        kinds = len(set(following))
        return (following.count(b) + kinds * alone[b]) / (len(following) + kinds)

    def posterior(left: int, right: int, seen: int, both: bool) -> list[float]:
        p = []
        for t in range(4):
            prior = alone[t] if left == 4 or not both else after(left, t)
            prior *= 1 if right == 4 or not both else after(t, right)
            p.append(prior * (0.8 if seen == 4 else 0.1 / 4 + 0.1 * (t == seen)))
        return [value / sum(p) for value in p]

    test = task.examples("test", task.evaluation_ids("test", 5), 0)
    found = {b.name: b.value for b in task.baselines(limit=5)}
    for name, both in (("unigram", False), ("bigrams of both sides", True)):
        bits = []
        for row, place in zip(*np.nonzero(test.counted), strict=True):
            left = test.inputs[row, place - 1] if place > 0 else 4
            right = test.inputs[row, place + 1] if place < 19 else 4
            p = posterior(left, right, test.inputs[row, place], both)
            bits.append(-math.log2(p[test.targets[row, place]]))
        assert found[name] == pytest.approx(np.mean(bits), rel=1e-9)


def test_a_short_text_is_refused(tmp_path):
    (tmp_path / "short.txt").write_text("too short")
    with pytest.raises(tasks.DataError, match="one example of length 128 needs 128"):
        tasks.build("masked_text", path=str(tmp_path / "short.txt"))
