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


def relations(records):
    """For every pair whether it is separated, and the places of all."""
    (task,) = board.make("quick", records, []).tasks
    rows = by_name(task.rows)
    apart = {(a, b): rows[a].separated_from(rows[b]) for a in rows for b in rows if a != b}
    return apart, {name: row.ranks for name, row in rows.items()}, task.notes


@draws
@given(tables(), st.permutations(NAMES))
def test_names_never_matter(table, names):
    other = dict(zip(NAMES, names, strict=True))
    apart, places, _ = relations(records_of(table))
    renamed_apart, renamed_places, _ = relations(records_of({other[name]: scores for name, scores in table.items()}))
    assert renamed_places == {other[name]: span for name, span in places.items()}
    assert renamed_apart == {(other[a], other[b]): differs for (a, b), differs in apart.items()}


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
    before, _, _ = relations(records_of(table))
    after, _, notes = relations(records_of({**table, "mamba": scores}))
    moved = [pair for pair, differs in before.items() if after[pair] != differs]
    found = [note for note in notes if note.startswith("depends on who else is on the board")]
    if moved:
        assert any("without mamba" in note or ("without" in note and "mamba" in note) for note in found)
