"""The Chomsky hierarchy's tasks against plain rules, token by token, and against the official examples."""

from itertools import pairwise

import numpy as np
import pytest

import tasks
from tasks.base import SPLITS, scores

IDS = np.arange(300)
SMALL = {"longest_train": 12, "shortest_test": 13, "longest_test": 24}


def parity(s: list[int]) -> list[int]:
    return [s.count(1) % 2]


def even_pairs(s: list[int]) -> list[int]:
    return [sum(pair in ((0, 1), (1, 0)) for pair in pairwise(s)) % 2]


def cycle_navigation(s: list[int]) -> list[int]:
    place = 0
    for token in s:
        place = (place + {0: -1, 1: 0, 2: 1}[token]) % 5
    return [place]


def modular_arithmetic(s: list[int]) -> list[int]:
    return [eval("".join("01234+-*"[token] for token in s)) % 5]


def stack_manipulation(s: list[int]) -> list[int]:
    stack: list[int] = []
    for token in s:
        if token == 2:
            stack = stack[:-1]
        else:
            stack.append(token if token < 2 else token - 3)
    answer = [*stack[::-1], 2]
    return answer + [0] * (len(s) + 1 - len(answer))


RULES = {
    "parity": parity,
    "even_pairs": even_pairs,
    "cycle_navigation": cycle_navigation,
    "modular_arithmetic": modular_arithmetic,
    "reverse_string": lambda s: s[::-1],
    "duplicate_string": lambda s: s + s,
    "odds_first": lambda s: s[1::2] + s[::2],
    "stack_manipulation": stack_manipulation,
}
NAMES = tuple(RULES)


def read(task, batch) -> list[tuple[list[int], list[int]]]:
    """Each row's string and answer, once its form has been found right."""
    pairs = []
    for tokens, valid, counted, targets in zip(batch.inputs, batch.mask, batch.counted, batch.targets, strict=True):
        n, end = int(counted.argmax()), int(valid.sum())
        assert valid[:end].all()
        assert counted[n:end].all()
        assert counted.sum() == end - n
        assert (tokens[n:] == task.shape.vocab - 1).all()
        assert not targets[~counted].any()
        pairs.append((tokens[:n].tolist(), targets[n:end].tolist()))
    return pairs


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_follows_from_its_string(name, split):
    task = tasks.build(name, longest_test=60)
    batch = task.examples(split, IDS, 1)
    assert batch.inputs.shape[1] == (task.train_length if split in ("train", "tune") else task.shape.length)
    low, high = {"train": (1, 40), "tune": (9, 40)}.get(split, (41, 60))
    for string, answer in read(task, batch):
        assert low <= len(string) <= high
        assert max(string) < task.shape.vocab - 1
        assert answer == RULES[name](string)
        assert max(answer) < task.shape.outputs


@pytest.mark.parametrize(
    ("name", "string", "answer"),
    [
        ("parity", "1010100", "1"),
        ("parity", "01111", "0"),
        ("even_pairs", "001110", "0"),
        ("even_pairs", "0101001", "1"),
        ("cycle_navigation", "20100", "3"),
        ("cycle_navigation", "2220", "2"),
        ("modular_arithmetic", "15273", "2"),
        ("modular_arithmetic", "16161", "4"),
        ("modular_arithmetic", "071547362", "0"),
        ("reverse_string", "011010", "010110"),
        ("duplicate_string", "010", "010010"),
        ("odds_first", "00110101", "01110100"),
        ("stack_manipulation", "0110422", "11020000"),
        ("stack_manipulation", "110222", "2000000"),
        ("stack_manipulation", "1", "12"),
        ("stack_manipulation", "02243", "012000"),
    ],
)
def test_examples_of_the_official_code(name, string, answer):
    """From its docstrings; where these contradict it, as in odds_first, what the code gives; and two more stacks."""
    tokens = np.array([list(map(int, string))])
    task = tasks.build(name)
    found = task.answers(tokens, np.array([len(string)]), np.zeros(1, dtype=np.int64))
    assert "".join(map(str, found[0])) == answer
    padded = np.concatenate([tokens, np.zeros((1, 5), dtype=np.int64)], axis=1)
    found = task.answers(padded, np.array([len(string)]), np.zeros(1, dtype=np.int64))
    assert "".join(map(str, found[0, : len(answer)])) == answer


@pytest.mark.parametrize("split", ["train", "test"])
def test_lengths_are_uniform(split):
    """χ² of lengths 1–40 with 39 degrees of freedom, and 41–60 with 19: p = .001."""
    task = tasks.build("reverse_string", longest_test=60)
    lengths = task.strings(split, np.arange(8000), 0)[1]
    low, high, limit = (1, 40, 72.1) if split == "train" else (41, 60, 43.9)
    counts = np.bincount(lengths, minlength=high + 1)[low:]
    expected = 8000 / (high - low + 1)
    assert counts.sum() == 8000
    assert ((counts - expected) ** 2 / expected).sum() < limit


def test_tokens_are_uniform_before_and_behind_the_head():
    for name, kinds in (("parity", 2), ("cycle_navigation", 3)):
        tokens = tasks.build(name).strings("test", IDS, 0)[0][:, :41]
        share = [(tokens == kind).mean(axis=0) for kind in range(kinds)]
        assert np.abs(np.array(share) - 1 / kinds).max() < 0.13
        assert np.abs(np.array(share).mean(axis=1) - 1 / kinds).max() < 0.02
    tokens, lengths, cuts = tasks.build("stack_manipulation").strings("train", np.arange(4000), 0)
    assert (cuts[lengths > 1] < lengths[lengths > 1]).all()
    assert np.mean(cuts[lengths > 20] / lengths[lengths > 20]) == pytest.approx(0.5, abs=0.02)
    inside = (np.arange(40) < lengths[:, None]) & (np.arange(40) >= cuts[:, None])
    assert [np.mean(tokens[inside] == kind) for kind in (2, 3, 4)] == pytest.approx([1 / 3] * 3, abs=0.02)


def test_all_short_strings_are_for_training():
    tokens, lengths, _ = tasks.build("parity").strings("train", np.arange(4000), 0)
    assert {tuple(row[:3]) for row in tokens[lengths == 3].tolist()} == set(np.ndindex(2, 2, 2))
    assert tasks.build("parity").strings("tune", np.arange(500), 0)[1].min() == 9


def test_scores_are_means_over_examples():
    torch = pytest.importorskip("torch")
    for name in NAMES:
        task = tasks.build(name, **SMALL)
        batch = task.examples("test", IDS, 0).tensors()
        logits = torch.nn.functional.one_hot(batch.targets, task.shape.outputs).double() * 50
        perfect = scores(task.totals(logits, batch))
        assert (perfect["accuracy"], perfect["exact"]) == (1, 1)
        assert perfect["loss"] < 1e-12
    task = tasks.build("stack_manipulation", **SMALL)
    batch = task.examples("test", np.arange(2), 0).tensors()
    guess = torch.zeros(*batch.targets.shape, 3)
    guess[..., 0] = 1
    shares = [answer[: answer.index(2) + 1] for _, answer in read(task, task.examples("test", np.arange(2), 0))]
    assert scores(task.totals(guess, batch))["accuracy"] == pytest.approx(
        np.mean([answer.count(0) / len(answer) for answer in shares])
    )


def test_baselines():
    values = {name: {b.name: b.value for b in tasks.build(name).baselines(limit=1000)} for name in NAMES}
    half = pytest.approx(0.5, abs=0.05)
    assert values["parity"] == {"constant": half, "last token": half}
    assert values["even_pairs"] == {"constant": half, "last token": half, "last pair": half}
    assert values["cycle_navigation"] == dict.fromkeys(["constant", "last step"], pytest.approx(0.2, abs=0.04))
    assert set(values["modular_arithmetic"]) == {"constant", "last number", "last operation"}
    assert values["modular_arithmetic"]["last operation"] < 0.35
    for name in ("reverse_string", "duplicate_string", "odds_first"):
        assert values[name]["constant"] == pytest.approx(0.5, abs=0.01)
        assert values[name]["last token"] == pytest.approx(0.5, abs=0.02)
    assert 0.3 < values["stack_manipulation"]["untouched"] < 0.6
