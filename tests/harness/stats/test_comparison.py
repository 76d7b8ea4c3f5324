"""What a board says of one task: planted rows, what must not change it, and what nothing can be said of."""

import math
import re
from itertools import combinations
from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness import stats


def planted(**means: float) -> dict[str, dict[int, float]]:
    """Rows that scatter by .01, each with the same variance."""
    return {a: {s: mean + 0.01 * (s - 1) for s in range(3)} for a, mean in means.items()}


def compare(scores, higher: bool = True) -> stats.Comparison:
    return stats.compare(scores, higher_is_better=higher)


def test_planted_intervals_ranks_and_letters():
    found = compare(planted(a=2.0, b=3.0, c=3.005, d=4.0), higher=False)
    assert {a: (e.rank_low, e.rank_high, e.letters) for a, e in found.estimates.items()} == {
        "a": (1, 1, "a"),
        "b": (2, 3, "b"),
        "c": (2, 3, "b"),
        "d": (4, 4, "c"),
    }
    assert found.separated == {("a", "b"), ("a", "c"), ("a", "d"), ("b", "d"), ("c", "d")}
    e = found.estimates["b"]
    assert (e.mean, e.low + e.high) == (pytest.approx(3.0), pytest.approx(6.0))
    # between about t(.975, 8) and t(.975, 2), as of a pooled variance and of the row's own
    assert 2.2 < (e.high - e.mean) / (0.01 / math.sqrt(3)) < 4.30
    assert found.variance == pytest.approx(1e-4, rel=0.2)
    flipped = compare(planted(a=2.0, b=3.0, c=3.005, d=4.0))
    assert list(flipped.estimates) == ["d", "c", "b", "a"]
    assert flipped.separated == {(b, a) for a, b in found.separated}


@pytest.mark.parametrize(
    ("scores", "note"),
    [
        ({"a": {0: 1.0}, "b": {0: 2.0}, "c": {0: 9.0}}, "one seed"),
        ({a: dict.fromkeys(range(3), 1.0) for a in "abc"}, "no scatter"),
        ({a: dict.fromkeys(range(3), v) for a, v in zip("abc", (0.1, 0.25, 0.25), strict=True)}, "no scatter"),
    ],
)
def test_one_seed_and_no_scatter_claim_nothing(scores, note):
    found = compare(scores)
    assert (found.separated, found.smallest_difference) == (frozenset(), None)
    assert all((e.rank_low, e.rank_high, e.low) == (1, 3, None) for e in found.estimates.values())
    assert any(note in said for said in found.notes)


def test_rows_without_scatter_borrow_that_of_the_others():
    saturated = {"top": dict.fromkeys(range(3), 1.0), "low": dict.fromkeys(range(3), 0.5)}
    alone = compare(saturated | {"noisy": {0: 0.7, 1: 0.8, 2: 0.75}})
    assert not {("top", "low")} & alone.separated, "nothing tells how these two scatter"
    assert (alone.estimates["top"].low, alone.estimates["noisy"].low is None) == (None, False)
    found = compare(saturated | planted(a=0.6, b=0.7, c=0.8, d=0.9))
    assert ("top", "low") in found.separated
    assert found.estimates["top"].low < 1 < found.estimates["top"].high


def test_seeds_that_are_missing():
    found = compare(planted(a=2.0, b=3.0, c=4.0) | {"d": {7: 2.99, 9: 3.01}, "e": {0: 0.0}}, higher=False)
    assert ("a", "d") in found.separated
    assert not {("b", "d"), ("d", "b")} & found.separated
    assert any("d (2 of 3)" in note for note in found.notes)
    e = found.estimates["e"]
    assert (e.rank_low, e.rank_high, e.low, found.estimates["a"].rank_high) == (1, 5, None, 2)
    assert compare({}).estimates == {}
    assert list(compare({"a": {0: math.nan}, "b": {0: 1.0, 1: math.inf}}).estimates) == ["b"]


def test_two_seeds_are_told_apart_where_many_rows_tell_the_scatter():
    rng = np.random.default_rng(4)
    scores = {f"m{i:02}": {s: i + rng.normal() * 0.02 for s in range(2)} for i in range(20)}
    assert len(compare(scores).separated) > 100
    assert any("two seeds" in note for note in compare(scores).notes)


def test_one_that_scatters_widely_hides_nobody():
    """Scores of a board of associative recall, of which one learned on two of three seeds."""
    scores = {
        "post_ln": (1.0, 1.0, 0.260),
        "pre_ln": (0.9999, 0.9999, 0.9993),
        "performer": (0.1447, 0.1478, 0.1477),
        "rwkv4": (0.1252, 0.1278, 0.1298),
        "lstm": (0.0508, 0.0410, 0.0419),
    }
    found = compare({a: dict(enumerate(by)) for a, by in scores.items()})
    assert {("pre_ln", "performer"), ("pre_ln", "lstm"), ("rwkv4", "lstm")} <= found.separated
    assert not any("post_ln" in pair for pair in found.separated)


@pytest.mark.parametrize(("seeds", "apart"), [(3, False), (8, True)])
def test_all_or_nothing_needs_more_seeds(seeds: int, apart: bool):
    """One row is now at .99, now at .02: three seeds of the others at either level may be luck, eight are not."""
    calm = {
        a: {s: v + 0.001 * (s % 3) for s in range(seeds)} for a, v in zip("abcd", (0.99, 0.5, 0.02, 0.3), strict=True)
    }
    found = compare(calm | {"e": {s: 0.99 if s % 2 else 0.02 for s in range(seeds)}})
    assert (("a", "c") in found.separated) is apart
    assert any("a–c" in note and "both levels" in note for note in found.notes) is not apart
    assert ("a", "b") in found.separated
    e = found.estimates["e"]
    assert e.high - e.low > 0.5


names = st.sampled_from("abcdef")
tables = st.dictionaries(names, st.dictionaries(st.integers(0, 4), st.floats(-5, 5), max_size=5), max_size=6)


@given(tables, st.booleans(), st.randoms(use_true_random=False))
@example({"b": {0: 0.0, 1: 0.0}, "a": {1: 0.0, 3: 0.0}, "c": {0: 0.0, 2: 0.0}}, False, Random(0))
@settings(max_examples=60, deadline=None)
def test_any_table_is_consistent(scores: dict[str, dict[int, float]], higher: bool, random):
    found = compare(scores, higher)
    n = len(found.estimates)
    for a, e in found.estimates.items():
        assert 1 <= e.rank_low <= e.rank_high <= n
        assert e.low is None or e.low < e.mean < e.high
        for b, other in found.estimates.items():
            apart = (a, b) in found.separated or (b, a) in found.separated
            assert a == b or apart is not bool(set(e.letters) & set(other.letters))
    for a, b in found.separated:
        better, worse = found.estimates[a].mean, found.estimates[b].mean
        assert better > worse if higher else better < worse
    shuffled = [(a, list(by.items())) for a, by in scores.items()]
    random.shuffle(shuffled)
    for _, by in shuffled:
        random.shuffle(by)
    assert compare({a: dict(by) for a, by in shuffled}, higher) == found


def test_letters_of_a_chain():
    """a-b and b-c are not separated, a-c is: b shares a letter with both."""
    assert stats.letters([0b011, 0b111, 0b110]) == ["a", "ab", "b"]


@pytest.mark.parametrize("ties", [0.0, 0.3, 0.8, 1.0])
def test_letters_of_many_rows_say_exactly_what_is_separated(ties):
    """Of any relation whatever, with more letters than the alphabet has."""
    rng, rows = np.random.default_rng(3), range(40)
    separated = {pair for pair in combinations(rows, 2) if rng.random() >= ties}
    tied = [sum(1 << j for j in rows if not {(i, j), (j, i)} & separated) for i in rows]
    found = [{*re.findall(r"[a-z]\d*", own)} for own in stats.letters(tied)]
    assert all(found)
    assert {(i, j) for i, j in combinations(rows, 2) if not found[i] & found[j]} == separated


def test_leaving_one_out_is_comparing_again():
    rng = np.random.default_rng(6)
    scores = {f"m{i}": dict(enumerate((rng.normal(size=3) + 2 * i).tolist())) for i in range(5)}
    full, influences = compare(scores).separated, stats.leave_one_out(scores, higher_is_better=True)
    found = {i.architecture: {*i.separated_without, *i.tied_without} for i in influences}
    assert found
    for name in scores:
        rest = compare({a: by for a, by in scores.items() if a != name}).separated
        assert found.get(name, set()) == rest ^ {pair for pair in full if name not in pair}


@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_unit_direction_names_and_order_do_not_matter(seed: int, k: int, n: int):
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(k, n)) * np.exp(rng.normal(size=(k, 1))) + 3 * rng.integers(0, 3, size=(k, 1))
    table[rng.random((k, n)) < 0.1] = math.nan

    def results(values: np.ndarray, higher: bool, names: list[str], seeds: list[int]) -> tuple:
        scores = {a: dict(zip(seeds, row, strict=True)) for a, row in zip(names, values.tolist(), strict=True)}
        found = compare(scores, higher)
        known = [(e.low, e.high) if e.low is not None else None for e in found.estimates.values()]
        pairs = {tuple(names.index(a) for a in pair) for pair in found.separated}
        return pairs, [h and h[1] - h[0] for h in known], found.smallest_difference

    names, seeds = [f"m{i}" for i in range(k)], [*range(n)]
    pairs, widths, smallest = results(table, True, names, seeds)
    for values, higher, scale in ((table * 4 + 7, True, 4), (-table, False, 1), (-table / 2 + 1, False, 0.5)):
        others = results(values, higher, names[::-1], seeds[::-1])
        assert others[0] == pairs
        assert [w is None for w in others[1]] == [w is None for w in widths]
        assert [w / scale for w in others[1] if w] == pytest.approx([w for w in widths if w], rel=1e-5)
        assert others[2] == (None if smallest is None else pytest.approx(scale * smallest, rel=1e-5))
