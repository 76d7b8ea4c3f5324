"""What never moves a ranking: names, and a rival, unless the board says so."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import board
from tests.harness.board.conftest import by_name
from tests.harness.planted import plant

NAMES = ("lstm", "s4d", "pre_ln", "gla", "mamba")
draws = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def tables(draw, rows=5):
    """Scores of some architectures on three seeds: a few sds apart, of spreads that differ."""
    rng = random.Random(draw(st.integers(0, 10**6)))
    step = draw(st.sampled_from([0.0, 0.5, 2.0, 4.0]))
    spreads = [draw(st.sampled_from([0.01, 0.02, 0.1])) for _ in range(rows)]
    effects = [rng.gauss(0, 0.1) for _ in range(3)]
    return {
        name: [3 + 0.02 * step * i + effects[seed] + rng.gauss(0, spreads[i]) for seed in range(3)]
        for i, name in enumerate(NAMES[:rows])
    }


def records_of(table):
    return [plant(name, seed, score) for name, scores in table.items() for seed, score in enumerate(scores)]


def relations(table, names=None):
    """For every pair of other `names` whether it is separated, the places of all, and the notes."""
    (task,) = board.make("quick", records_of(table), []).tasks
    rows = {(names or {}).get(name, name): row for name, row in by_name(task.rows).items()}
    apart = {(a, b): rows[a].separated_from(rows[b]) for a in rows for b in rows if a != b}
    return apart, {name: row.ranks for name, row in rows.items()}, task.notes


@draws
@given(tables(), st.permutations(NAMES))
def test_names_never_matter(table, names):
    other = dict(zip(NAMES, names, strict=True))
    renamed = {other[name]: scores for name, scores in table.items()}
    assert relations(renamed)[:2] == relations(table, other)[:2]


@pytest.mark.parametrize("rival", ["same", "far", "wild"])
@draws
@given(tables(rows=4))
def test_a_rival_moves_no_tie_between_others_unless_the_board_says_so(rival, table):
    middle = table["s4d"]
    scores = {
        "same": [score + 0.001 * (-1) ** i for i, score in enumerate(middle)],
        "far": [score + 5 for score in middle],
        "wild": [score + 0.5 * (i - 1) for i, score in enumerate(middle)],
    }[rival]
    before, _, _ = relations(table)
    after, _, notes = relations({**table, "mamba": scores})
    if any(after[pair] != differs for pair, differs in before.items()):
        (note,) = [note for note in notes if note.startswith("depends on who else is on the board")]
        assert "mamba" in note
