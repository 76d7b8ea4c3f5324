"""Word problems against permutations that are composed one after another."""

from functools import partial
from hashlib import sha256
from itertools import permutations, product

import numpy as np
import pytest

import tasks
from tasks.base import scores
from tasks.state.word_problem import ORDERS, cayley

IDS = np.arange(200)


def is_even(p: tuple[int, ...]) -> bool:
    return round(np.linalg.det(np.eye(len(p))[list(p)])) == 1


def walk(group: str, inputs: list[int]) -> list[int]:
    """Products by moving objects: x₁·…·x_t sends i to x₁(x₂(…x_t(i)))."""
    if "x" in group:
        first, second = group.split("x")
        size = int(second[1:])
        left = walk(first, [x // size for x in inputs])
        return [a * size + b for a, b in zip(left, walk(second, [x % size for x in inputs]), strict=True)]
    n = int(group[1:])
    if group[0] == "Z":
        return [sum(inputs[: t + 1]) % n for t in range(len(inputs))]
    elements = [p for p in sorted(permutations(range(n))) if group[0] == "S" or is_even(p)]
    outputs = []
    for t in range(len(inputs)):
        places = list(range(n))
        for x in reversed(inputs[: t + 1]):
            places = [elements[x][place] for place in places]
        outputs.append(elements.index(tuple(places)))
    return outputs


@pytest.mark.parametrize("group", ORDERS)
def test_targets_are_running_products(group):
    task = tasks.build("word_problem", group=group, length=15)
    batch = task.examples("train", IDS[:40], 2)
    assert task.shape.vocab == task.shape.outputs == ORDERS[group]
    for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        assert targets == walk(group, inputs)


@pytest.mark.parametrize("group", ORDERS)
def test_tables_are_groups(group):
    table = cayley(group)
    n = ORDERS[group]
    everything = np.arange(n)
    assert table.shape == (n, n)
    np.testing.assert_array_equal(table[0], everything)
    np.testing.assert_array_equal(table[:, 0], everything)
    np.testing.assert_array_equal(np.sort(table, axis=0), np.broadcast_to(everything[:, None], (n, n)))
    a, b, c = np.random.default_rng(0).integers(0, n, (3, 2000))
    np.testing.assert_array_equal(table[table[a, b], c], table[a, table[b, c]])
    assert (table == table.T).all() == (group[0] == "Z")


def test_the_official_file_of_all_pairs_is_reproduced():
    """data/A4_x_Z5=2.csv of jopetty/word-problem (380e419), by its Git LFS pointer; the seed was found by trying."""
    table = cayley("A4xZ5")
    lines = [f"814239,{a} {b},{a} {table[a, b]}\n" for a, b in product(range(60), repeat=2)]
    content = "".join(["seed,input,target\n", *lines]).encode()
    assert len(content) == 66018
    assert sha256(content).hexdigest() == "8938e809eed273317847668dca40b01571d9ebc96a4151c12de9ae9b063c1259"


def test_elements_and_products_are_uniform():
    batch = tasks.build("word_problem", group="S3", length=20).examples("train", np.arange(6000), 0)
    for tokens in (batch.inputs, batch.targets):
        shares = np.stack([(tokens == element).mean(axis=0) for element in range(6)])
        assert np.abs(shares - 1 / 6).max() < 0.02


def test_totals_and_baselines():
    torch = pytest.importorskip("torch")
    task = tasks.build("word_problem", length=4)
    batch = task.examples("test", np.arange(4), 0).tensors()
    answers = batch.targets.clone()
    answers[0, 1] = (answers[0, 1] + 1) % 120
    answers[1, 3] = (answers[1, 3] + 1) % 120
    found = scores(task.totals(torch.nn.functional.one_hot(answers, 120).float(), batch))
    assert (found["exact"], found["accuracy"], found["last"]) == (0.5, 14 / 16, 0.75)
    assert task.metric.chance == pytest.approx(120**-4)
    assert {b.name: b.value for b in task.baselines()} == pytest.approx(
        {"constant": 0, "last element": 0, "last pair": 0}, abs=0.01
    )


def test_the_score_may_be_the_share_of_right_steps():
    """By hand: of the parities of 16 bits a constant has half, the last bits all of the first steps too."""
    build = partial(tasks.build, "word_problem", group="Z2", length=16)
    exact, accuracy = build(score="exact"), build(score="accuracy")
    assert (accuracy.metric.name, accuracy.metric.chance, *accuracy.also) == ("accuracy", 0.5, "exact", "last")
    assert accuracy.fingerprint != exact.fingerprint, "baselines are kept by it"
    values = {b.name: b.value for b in accuracy.baselines()}
    assert values == pytest.approx({"constant": 0.5, "last element": 0.53, "last pair": 0.56}, abs=0.02)
    with pytest.raises(ValueError, match="score must be exact or accuracy"):
        tasks.build("word_problem", score="best")
