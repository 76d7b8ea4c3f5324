"""Verdicts follow from intervals, and intervals are those of the methods one can look up."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from harness.claims import verdict
from harness.claims.plan import Claim, Contrast, Margin, Score, Share
from harness.claims.quantities import Column, Measured
from harness.claims.verdict import CLAIMS, judge_claim, level
from harness.errors import UserError

COLUMN = Column("text", "", "loss", primary=True)


def claim(*contrasts, **more):
    return Claim(says="so", contrasts=contrasts, **{"suite": "own", **more})


def judged(measured, *contrasts, monkeypatch):
    monkeypatch.setattr(verdict, "claims", lambda: {"own": claim(*contrasts)})
    return judge_claim("own", measured)


def test_the_interval_of_one_quantity_is_students(monkeypatch):
    values = np.random.default_rng(0).normal(3, 2, size=10)
    one = judged(Measured({"x": values.tolist()}), Contrast(says="", of="x", above=0), monkeypatch=monkeypatch)
    want = stats.ttest_1samp(values, 0).confidence_interval(1 - 0.05 / CLAIMS)
    assert (one.effects[0].low, one.effects[0].high) == pytest.approx(tuple(want), rel=0.02)
    assert one.effects[0].mean == pytest.approx(values.mean())


def test_many_rows_of_equal_scatter_tell_of_each_other(monkeypatch):
    """Of 40 rows with one variance the interval of a difference comes near the one where it is known."""
    rng = np.random.default_rng(1)
    rows = {f"row {i}": rng.normal(0, 1, size=3).tolist() for i in range(40)}
    contrast = Contrast(says="", of=Score(row="row 0"), minus=Score(row="row 1"), above=0)
    one = judged(Measured(scores={COLUMN: rows}), contrast, monkeypatch=monkeypatch)
    half = stats.norm.isf(level() / 2) * np.sqrt(2 / 3)
    assert (one.effects[0].high - one.effects[0].low) / 2 == pytest.approx(half, rel=0.2)
    alone = stats.ttest_ind(rows["row 0"], rows["row 1"], equal_var=False).confidence_interval(1 - level())
    assert alone.high - alone.low > 2 * (one.effects[0].high - one.effects[0].low)


def test_a_mean_over_tasks_weighs_each_alike_and_knows_no_row_that_lacks_one(monkeypatch):
    rng = np.random.default_rng(2)
    lists, digits = (COLUMN._replace(task=task, metric="accuracy") for task in ("lists", "digits"))
    scores = {
        column: {f"row {i}": rng.normal(size=n).tolist() for i in range(6)} for column, n in ((lists, 3), (digits, 4))
    }
    scores[digits]["alone"] = [1.0, 2.0]
    means = [(a + b) / 2 for a, b in zip(scores[lists]["row 0"], scores[digits]["row 0"], strict=False)]
    measured = Measured(scores=scores)
    values, others = measured.rows(Score(row="row 0", over="tasks"))
    assert (values, [len(other) for other in others]) == (pytest.approx(means), [3] * 5)
    assert measured.rows(Score(row="alone", over="tasks"))[0] == []
    contrast = Contrast(says="", of=Score(row="row 0", over="tasks"), minus=Score(row="row 1", over="tasks"), above=0)
    (effect,) = judged(measured, contrast, monkeypatch=monkeypatch).effects
    assert effect.mean == pytest.approx(np.mean(means) - np.mean(measured.rows(Score(row="row 1", over="tasks"))[0]))
    measured.tables.extend([("lists", ""), ("digits", ""), ("not made", "")])
    assert measured.rows(Score(row="row 0", over="tasks")) == ([], []), "until every task is made"
    assert np.isnan(measured.cells()).all((0, 2, 3)).tolist() == [False, False, True]
    scores[COLUMN] = scores[lists]
    with pytest.raises(UserError, match="row 0 · mean over tasks is one of 2"):
        measured.rows(Score(row="row 0", over="tasks"))
    with pytest.raises(ValueError, match="give a task, or over: tasks"):
        Score(row="row 0", task="lists", over="tasks")


@pytest.mark.parametrize(
    ("bounds", "finding"),
    [
        ({"above": 4}, "holds"),
        ({"below": 6}, "holds"),
        ({"within": (4, 6)}, "holds"),
        ({"above": 6}, "fails"),
        ({"below": 4}, "fails"),
        ({"within": (6, 7)}, "fails"),
        ({"above": 5}, "undecided"),
        ({"within": (5, 6)}, "undecided"),
    ],
)
def test_findings(bounds, finding, monkeypatch):
    values = (5 + 0.1 * np.random.default_rng(2).normal(size=12)).tolist()
    one = judged(Measured({"x": values}), Contrast(says="", of="x", **bounds), monkeypatch=monkeypatch)
    assert one.effects[0].finding == finding


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ((1, 1), "supported"),
        ((-1, -1), "refuted"),
        ((1, -1), "depends"),
        ((1, 0, -1, None), "depends"),
        ((1, 0), "undecided"),
        ((1, None), "not measured"),
    ],
)
def test_verdicts(levels, said, monkeypatch):
    noise = np.random.default_rng(3).normal(size=8)
    values = {
        str(i): (value + (0.01 if value else 10) * noise).tolist()
        for i, value in enumerate(levels)
        if value is not None
    }
    contrasts = [Contrast(says="", of=str(i), above=0) for i in range(len(levels))]
    assert judged(Measured(values), *contrasts, monkeypatch=monkeypatch).verdict == said


def test_one_seed_decides_nothing(monkeypatch):
    one = judged(Measured({"x": [5.0]}), Contrast(says="", of="x", above=0), monkeypatch=monkeypatch)
    assert (one.verdict, one.effects[0].low, one.effects[0].seeds) == ("undecided", None, 1)


def test_the_seeds_that_would_decide_do(monkeypatch):
    """Normal scores whose mean and variance are exact: with the seeds asked for, the interval is clear of the bound."""

    def exact(n):
        quantiles = stats.norm.ppf((np.arange(n) + 0.5) / n)
        return (1 + 2 * quantiles / quantiles.std(ddof=1)).tolist()

    contrast = Contrast(says="", of="x", above=0)
    before = judged(Measured({"x": exact(12)}), contrast, monkeypatch=monkeypatch).effects[0]
    assert before.finding == "undecided"
    assert before.needs > 12
    assert judged(Measured({"x": exact(before.needs)}), contrast, monkeypatch=monkeypatch).effects[0].finding == "holds"
    few = judged(Measured({"x": exact(before.needs - 8)}), contrast, monkeypatch=monkeypatch).effects[0]
    assert few.finding == "undecided"


def test_a_true_bound_is_missed_as_rarely_as_the_level_says(monkeypatch):
    """10 rows of 3 seeds, the mean of the first on the bound itself: 12 claims together may err in 5%."""
    monkeypatch.setattr(verdict, "DRAWS", 20_000)
    monkeypatch.setattr(verdict, "level", lambda: 0.05)
    rng, wrong = np.random.default_rng(4), 0
    contrast = Contrast(says="", of=Score(row="0"), minus=Score(row="1"), above=0)
    for _ in range(200):
        rows = {str(i): rng.normal(0, 1, size=3).tolist() for i in range(10)}
        one = judged(Measured(scores={COLUMN: rows}), contrast, monkeypatch=monkeypatch)
        wrong += one.effects[0].finding != "undecided"
    assert wrong <= 20  # of 10 expected; more has a chance of .001


def test_shares_of_the_variance_are_those_of_an_analysis_of_variance(monkeypatch):
    """Means as statsmodels has them, and the interval of a difference of two holds the true one."""
    rng, factors = np.random.default_rng(5), ("row", "task", "track")
    truth = 1.0 * np.arange(6)[:, None, None] + 3.0 * np.arange(2)[:, None] + np.array([0, 0.5, 2.0])
    truth = truth + rng.normal(0, 0.3, truth.shape)
    scores = truth[..., None] + rng.normal(0, 0.2, (*truth.shape, 3))
    cells = pd.DataFrame(
        [(*map(str, place), scores[place].mean()) for place in np.ndindex(truth.shape)], columns=[*factors, "score"]
    )
    squares = anova_lm(ols("score ~ row + task + track", cells).fit())["sum_sq"]
    measured = Measured(
        scores={
            Column(str(j), str(k), "loss", primary=True): {str(i): scores[i, j, k].tolist() for i in range(6)}
            for j, k in np.ndindex(2, 3)
        }
    )
    contrasts = [Contrast(says="", of=Share(share=factor), above=0) for factor in factors]
    shares = judged(measured, *contrasts, monkeypatch=monkeypatch).effects
    assert [one.mean for one in shares] == pytest.approx([squares[factor] / squares.sum() for factor in factors])

    first, second = (truth.mean(axes).var() / truth.var() for axes in ((0, 2), (0, 1)))
    difference = Contrast(says="", of=Share(share="task"), minus=Share(share="track"), above=0)
    (one,) = judged(measured, difference, monkeypatch=monkeypatch).effects
    assert one.seeds == 3
    assert one.low < first - second < one.high
    assert one.high - one.low < 0.2


def test_a_table_that_lacks_a_cell_has_no_shares(monkeypatch):
    scores = {Column(task, "", "loss", primary=True): {"a": [1.0, 2.0], "b": [2.0, 2.5]} for task in "xy"}
    del scores[Column("y", "", "loss", primary=True)]["b"]
    one = judged(Measured(scores=scores), Contrast(says="", of=Share(share="row"), above=0), monkeypatch=monkeypatch)
    assert one.verdict == "not measured"


def priced(cells, *, higher=True):
    """A task of accuracy: by (track, row), its size, its latency and its scores."""
    measured = Measured(chance={"digits": 0.1})
    for (track, row), (size, latency, scores) in cells.items():
        column = Column("digits", track, "accuracy", primary=True, higher=higher)
        measured.scores.setdefault(column, {})[row] = scores
        measured.costs["digits", track, row, "size"] = [size]
        measured.costs["digits", track, row, "latency"] = [latency, latency]
        measured.tables.append(("digits", track))
    return measured


MARGINS = {
    ("small", "a"): (10, 2.0, [0.5, 0.5]),
    ("small", "b"): (10, 1.0, [0.6, 0.6]),
    ("large", "a"): (99, 3.0, [0.8, 0.8]),
    ("large", "b"): (99, 4.0, [0.9, 0.9]),
}


@pytest.mark.parametrize(
    ("row", "track", "by", "margin"),
    [
        ("a", "small", "size", -0.1),
        ("b", "small", "size", 0.1),
        ("b", "small", "latency", 0.5),  # nothing is as fast, so over chance
        ("a", "large", "size", -0.1),
        ("a", "large", "latency", 0.2),
        ("b", "large", "latency", 0.1),
    ],
)
def test_a_margin_is_over_the_best_that_costs_no_more(row, track, by, margin, monkeypatch):
    asked = Contrast(says="", of=Margin(margin=row, by=by, track=track), above=0)
    (effect,) = judged(priced(MARGINS), asked, monkeypatch=monkeypatch).effects
    assert effect.mean == pytest.approx(margin)
    assert effect.finding == ("holds" if margin > 0 else "fails")
    losses = priced(
        {place: (*costs, [-s for s in scores]) for place, (*costs, scores) in MARGINS.items()}, higher=False
    )
    losses.chance["digits"] = -0.1
    assert judged(losses, asked, monkeypatch=monkeypatch).effects[0].mean == pytest.approx(margin)


@pytest.mark.parametrize(("rivals", "gap"), [(1, 0.0), (8, 0.0), (8, 3.0)])
def test_the_interval_of_a_margin_covers_it(rivals, gap, monkeypatch):
    """All are equally good, but for `gap` of all rivals but one; which of them is the best by means is chance."""
    monkeypatch.setattr(verdict, "DRAWS", 10_000)
    monkeypatch.setattr(verdict, "level", lambda: 0.05)
    rng, covered = np.random.default_rng(6), 0
    asked = Contrast(says="", of=Margin(margin="0", by="size", track="one"), above=0)
    for _ in range(100):
        means = [0.0, 0.0] + [-gap] * (rivals - 1)
        cells = {("one", f"{i}"): (10, 1.0, (mean + rng.normal(size=5)).tolist()) for i, mean in enumerate(means)}
        measured = priced(cells)
        measured.chance["digits"] = -9.0
        (effect,) = judged(measured, asked, monkeypatch=monkeypatch).effects
        covered += effect.low <= 0 <= effect.high
    assert covered >= 86  # of 95 expected; errors that are not taken the other way round cover 66 of 8 equal rivals


@pytest.mark.parametrize("lacking", ["scores", "costs", "a track"])
def test_no_margin_while_a_cell_lacks_anything(lacking, monkeypatch):
    measured = priced(MARGINS)
    if lacking == "scores":
        del measured.scores[Column("digits", "large", "accuracy", primary=True)]["b"]
    elif lacking == "costs":
        del measured.costs["digits", "small", "b", "size"]
    else:
        measured.tables.append(("digits", "largest"))
    asked = Contrast(says="", of=Margin(margin="a", by="size", track="small"), above=0)
    assert judged(measured, asked, monkeypatch=monkeypatch).verdict == "not measured"
