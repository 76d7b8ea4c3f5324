"""ListOps: its values against a plain evaluator, its statistics against published ones."""

from statistics import median

import numpy as np
import pytest

import tasks
from tasks import splits

SHORT = {"min_length": 10, "max_length": 60, "max_depth": 4, "max_args": 5}
SMALL = {"min_length": 20, "max_length": 128, "max_depth": 6, "max_args": 5}
PAPER = tasks.get("listops").make.difficulties["paper"].options
RULES = {1: min, 2: max, 3: lambda args: int(median(args)), 4: lambda args: sum(args) % 10}


def parsed(tokens: list[int]) -> list | int:
    """Nested lists, [operator, argument, ...], and digits."""
    stack: list[list] = [[]]
    for token in tokens:
        if token in RULES:
            stack.append([token])
        else:
            argument = stack.pop() if token == 5 else token - 6
            stack[-1].append(argument)
    assert len(stack) == 1
    assert len(stack[0]) == 1
    return stack[0][0]


def value(tree: list | int, depth: int = 99) -> int | None:
    if isinstance(tree, int) or depth == 0:
        return tree if isinstance(tree, int) else None
    args = [v for v in (value(child, depth - 1) for child in tree[1:]) if v is not None]
    return RULES[tree[0]](args) if args else None


def height(tree: list | int) -> int:
    return 1 if isinstance(tree, int) else 1 + max(map(height, tree[1:]))


def nodes(tree: list | int, depth: int = 1):
    yield tree, depth
    for child in [] if isinstance(tree, int) else tree[1:]:
        yield from nodes(child, depth + 1)


@pytest.mark.parametrize(("options", "n"), [(SHORT, 1000), (SMALL, 1000), (PAPER, 40)])
def test_examples_are_trees_with_the_value_they_claim(options, n):
    task = tasks.build("listops", **options)
    batch = task.examples("train", np.arange(n), 1)
    assert batch.inputs.shape == batch.mask.shape == (n, options["max_length"])
    assert not batch.inputs[~batch.mask].any()
    sizes = batch.mask.sum(axis=1)
    assert options["min_length"] < sizes.min()
    assert sizes.max() < options["max_length"]
    for row, size, target in zip(batch.inputs, sizes, batch.targets, strict=True):
        tree = parsed(row[:size].tolist())
        assert value(tree) == target
        assert height(tree) <= options["max_depth"]
        counts = [len(node) - 1 for node, _ in nodes(tree) if not isinstance(node, int)]
        assert min(counts) >= 2
        assert max(counts) <= options["max_args"]


def test_nodes_are_drawn_with_the_stated_probabilities():
    """With lengths that bind nobody: given a root that is an operator, its arguments are free."""
    task = tasks.build("listops", min_length=1, max_length=3000, max_depth=3, max_args=4)
    batch = task.examples("train", np.arange(6000), 0)
    trees = [parsed(row[row > 0].tolist()) for row in batch.inputs]
    arity = np.bincount([len(tree) - 1 for tree in trees], minlength=5)[2:]
    children = [child for tree in trees for child in tree[1:]]
    inner = [child for child in children if not isinstance(child, int)]
    digits = [child for child in children if isinstance(child, int)]
    assert len(inner) / len(children) == pytest.approx(0.25, abs=0.012)
    for counts, n in (
        (arity, 3),
        (np.bincount([tree[0] for tree in trees])[1:], 4),
        (np.bincount([node[0] for node in inner])[1:], 4),
        (np.bincount(digits), 10),
    ):
        assert len(counts) == n
        expected = counts.sum() / n
        assert ((counts - expected) ** 2 / expected).sum() < {3: 13.8, 4: 16.3, 10: 27.9}[n]  # χ², p = .001


def test_examples_are_in_the_home_of_their_tokens():
    task = tasks.build("listops", **SHORT)
    for place, split in enumerate(("train", "tune", "valid", "test")):
        assert (splits.home(task.examples(split, np.arange(100), 0).inputs) == place).all()


@pytest.mark.parametrize(("depth", "expected"), [(1, 4), (2, 5), (3, 4)])
def test_truncated_by_hand(depth, expected):
    """[MAX 4 [MIN 5 [SM 5 8 ] ] [MED [MED 2 2 ] [MIN 1 1 ] ] ]: without depth 2, without depth 3, whole."""
    from tasks.long_range.trees import truncated

    tokens = np.array([[2, 10, 1, 11, 4, 11, 14, 5, 5, 3, 3, 8, 8, 5, 1, 7, 7, 5, 5, 5, 0]])
    assert truncated(tokens, depth, 0).tolist() == [expected]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_truncated_is_the_plain_evaluator(depth):
    from tasks.long_range.trees import truncated

    inputs = tasks.build("listops").examples("test", np.arange(500), 0).inputs
    plain = [value(parsed(row[row > 0].tolist()), depth) for row in inputs]
    np.testing.assert_array_equal(truncated(inputs, depth, 7), [7 if v is None else v for v in plain])


@pytest.mark.parametrize(
    ("options", "majority", "root", "depths"),
    [
        (SHORT, (0.111, 0.111), (0.234, 0.234), (0.435, 0.684, 1.0)),
        (SMALL, (0.118, 0.118), (0.242, 0.242), (0.415, 0.623, 0.792)),
        pytest.param(PAPER, (0.162, 0.175), (0.361, 0.372), (0.479, 0.674, 0.792), marks=pytest.mark.with_all),
    ],
)
def test_published_statistics(options, majority, root, depths):
    """Here on the 2,000 examples of the test split, published on some 2,000: the difference has variance 2pq/2000."""
    found = {b.name: b.value for b in tasks.build("listops", **options).baselines()}
    wanted = {"majority": majority, "root operator": root, **{f"depth {d + 1}": (p, p) for d, p in enumerate(depths)}}
    for name, (low, high) in wanted.items():
        slack = 3 * (2 * low * (1 - low) / 2000) ** 0.5
        assert low - slack <= found[name] <= high + slack, name


def test_stretched_trees_are_longer_and_deeper():
    longer = tasks.build("listops", examples=7).stretched(4)
    assert longer.options == {"examples": 7, "min_length": 80, "max_length": 512, "max_depth": 8}
    assert longer.examples("test", np.arange(9), 0).mask.sum(axis=1).min() > 80
    assert longer.shape.length == 512


def test_lengths_that_no_tree_has(monkeypatch):
    """With two arguments every tree has 3k + 1 tokens."""
    monkeypatch.setattr("tasks.long_range.listops.ATTEMPTS", 1000)
    task = tasks.build("listops", min_length=7, max_length=10, max_args=2)
    with pytest.raises(ValueError, match="none of 1,000 trees had more than 7 and fewer than 10 tokens"):
        task.examples("train", np.arange(2), 0)
