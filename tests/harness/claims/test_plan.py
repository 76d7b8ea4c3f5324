"""What was planned can be measured: every quantity of a contrast is one that its suite or experiment has."""

import pytest

from harness.claims import experiments
from harness.claims.experiments import EXPERIMENTS
from harness.claims.plan import SCALES, Claim, Margin, Share, claims
from harness.claims.verdict import CLAIMS
from harness.suite.load import load
from zoo.types import LABELLED

SUITES = [name for name, claim in claims().items() if claim.suite]
MEASURED = [name for name, claim in claims().items() if claim.experiment]


def test_there_are_no_more_claims_than_the_level_was_divided_by():
    assert len(claims()) <= CLAIMS


@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("scale", SCALES)
def test_a_suite_has_the_rows_and_tasks_of_its_contrasts(name, scale):
    loaded = load(claims()[name].suite, () if scale == "small" else (f"difficulty={scale}",))
    for contrast in claims()[name].contrasts:
        for quantity in contrast.quantities:
            if isinstance(quantity, Share):
                has_shares(loaded)
            elif isinstance(quantity, Margin):
                has_points(loaded, quantity)
            else:
                has_score(loaded, quantity)
    assert len(loaded.suite.first_seeds) >= 2


def has_score(loaded, score):
    """One table has it; or of one that is a mean over tasks, several that are ranked alike."""
    tables = [t for t in loaded.tables() if score.task in (None, t[0]) and score.track in (None, t[1])]
    assert len(tables) == 1 or (score.over and len({track for _, track in tables}) == 1), f"{score}: {tables}"
    tasks = [loaded.task(label) for label, _ in tables]
    assert len({task.task.metric.name for task in tasks}) == 1
    for task in tasks:
        assert score.row in {entry.label for entry in loaded.plays(task)}
        assert score.metric in (None, task.task.metric.name, *task.task.also)


def has_shares(loaded):
    assert min(len(loaded.plays(loaded.tasks[0])), len(loaded.tasks), len(loaded.suite.tracks)) > 1
    assert all(loaded.suite.tracks_of(task.entry) == (*loaded.suite.tracks,) for task in loaded.tasks)


def has_points(loaded, margin):
    """Every track of the only task has every row, of a size that the track sets, and the task tells what chance is."""
    (task,) = loaded.tasks
    assert margin.margin in {entry.label for entry in loaded.plays(task)}
    assert margin.track in loaded.suite.tracks
    assert loaded.suite.tracks_of(task.entry) == (*loaded.suite.tracks,)
    assert task.task.metric.chance is not None
    assert task.task.role in LABELLED


@pytest.mark.parametrize("name", MEASURED)
def test_an_experiment_measures_what_its_contrasts_are_about(name, monkeypatch):
    monkeypatch.setattr(experiments, "TURNS", 1)
    claim = claims()[name]
    measured = EXPERIMENTS[claim.experiment](seed=1)
    assert {quantity for contrast in claim.contrasts for quantity in contrast.quantities} <= {*measured}
    for contrast in claim.contrasts:
        if name != "parallel":
            low, high = contrast.bounds
            value = measured[contrast.of]
            assert 0.8 * low <= value <= 1.2 * high, f"{contrast.says}: {value}"


def test_the_programme_of_1991_has_no_other_eps(monkeypatch):
    """A planted fault: attention that divides by something else is no fast weight programme of the same weights."""
    monkeypatch.setattr(experiments, "_programme", faulty(experiments._programme))
    assert EXPERIMENTS["fast_weights"](seed=1)["outputs"] > 1e-6


def faulty(programme):
    def run(slow, x):
        slow.eps = 1e-3
        return programme(slow, x)

    return run


def test_positions_break_the_set(monkeypatch):
    """A planted fault: with positions the order is seen."""
    build = experiments.zoo.build
    monkeypatch.setattr(
        experiments.zoo, "build", lambda *a, positions=None, **options: build(*a, positions="sinusoidal", **options)
    )
    measured = EXPERIMENTS["permutation"](seed=1)
    assert measured["encoder, permuted inputs"] > 1e-3
    assert measured["one causal layer, permuted prefix"] > 1e-3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"above": 1, "below": 2}, "exactly one of above, below, within"),
        ({}, "exactly one of above, below, within"),
        ({"above": 1, "beside": 2}, "unknown key 'beside'"),
    ],
)
def test_a_contrast_has_one_kind_of_bound(change, said):
    data = {"says": "x", "experiment": "figure", "seeds": {"smoke": 1, "small": 1, "paper": 1}}
    with pytest.raises(ValueError, match=said):
        Claim.model_validate(data | {"contrasts": [{"says": "y", "of": "z", **change}]})


def test_a_claim_has_a_suite_or_an_experiment():
    with pytest.raises(ValueError, match="a suite or an experiment"):
        Claim.model_validate({"says": "x", "contrasts": []})
    with pytest.raises(ValueError, match="seeds of an experiment for smoke, small, paper"):
        Claim.model_validate({"says": "x", "experiment": "figure", "seeds": {"smoke": 1}, "contrasts": []})
