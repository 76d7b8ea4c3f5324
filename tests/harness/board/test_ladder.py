"""Ladders: what is fitted to planted losses says what was planted, and tracks of other kinds are none."""

import math
from dataclasses import replace

import numpy as np
import pytest

from harness import board
from harness.board import formats
from harness.records.meters import StopRule
from harness.records.spec import MatchRule
from harness.stats import scaling
from harness.stats.scaling import Law
from harness.suite.load import load
from tests.harness.planted import plant

PARAMS = (10_000, 30_000, 90_000, 270_000, 810_000)
LAWS = {"pre_ln": Law(1.7, 1.1, 0.22, 1e12), "saves": Law(1.7, 1.1, 0.22, 1e12 / 1.5), "flat": Law(2.4, 0.5, 0.1, 1e12)}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(scaling, "DRAWS", 60)


def records(params=PARAMS, tokens_per_param=20, laws=LAWS):
    rng, made = np.random.default_rng(0), []
    for N in params:
        tokens, C = tokens_per_param * N, 6.0 * N * tokens_per_param * N
        for name, law in laws.items():
            for seed in range(3):
                changes = {
                    "spec__track": f"{N // 1000}k",
                    "spec__match": MatchRule("params", N, 0.05),
                    "spec__stop": StopRule("tokens", tokens),
                    "budget__used__tokens": float(tokens),
                    "budget__used__flops": C,
                    "run_id": f"{name}-{seed}-{N}",
                }
                made.append(plant(name, seed, law.loss(C) * math.exp(0.0005 * rng.normal()), **changes))
    return made


def test_a_planted_multiplier_and_the_last_rung_are_found():
    (ladder,) = board.make("ladder", records(), [], reference="pre_ln").ladders
    assert [row.architecture for row in ladder.rows] == ["saves", "pre_ln", "flat"]
    rows = {row.architecture: row for row in ladder.rows}
    for found, low, high in [*(rung.multiplier for rung in rows["saves"].rungs[1:]), rows["saves"].beyond]:
        assert found == pytest.approx(1.5, rel=0.1)
        assert low <= found <= high
    assert [row.foreseen for row in ladder.rows] == [True] * 3
    assert rows["pre_ln"].rungs[0].multiplier is None, "the reference is not compared with itself"
    assert [rung.track for rung in rows["flat"].rungs] == ["10k", "30k", "90k", "270k", "810k"]


def test_curves_that_cross_are_named():
    (ladder,) = board.make("ladder", records(), [], reference="pre_ln").ladders
    crossed = {frozenset(pair): C for *pair, C in ladder.crossings}
    C = crossed[frozenset(("pre_ln", "flat"))]
    assert LAWS["pre_ln"].loss(C) == pytest.approx(LAWS["flat"].loss(C), rel=0.01)
    assert frozenset(("pre_ln", "saves")) not in crossed


def test_every_format_has_it():
    text = formats.markdown(board.make("ladder", records(), [], reference="pre_ln"))
    assert "## text by compute" in text
    assert "the reference is pre_ln" in text


def test_a_row_that_lacks_a_rung_is_named():
    some = [r for r in records() if (r.spec.architecture_label, r.spec.track) != ("flat", "90k")]
    (ladder,) = board.make("ladder", some, [], reference="pre_ln").ladders
    assert (len(ladder.rows), ladder.left_out) == (2, ["flat"])


def test_other_tracks_are_no_ladder():
    assert board.make("ladder", records(params=PARAMS[:2]), []).ladders == [], "two rungs"
    equal = [r.replace(spec=r.spec.replace(stop=StopRule("tokens", 1e6))) for r in records()]
    assert board.make("ladder", equal, []).ladders == [], "tokens do not grow"
    better = [r.replace(metrics=replace(r.metrics, higher_is_better=True)) for r in records()]
    assert board.make("ladder", better, []).ladders == [], "not a loss"


def test_a_suite_states_its_ladder_in_one_key(suite, call):
    path = suite(scaling={"params": ["2k", "4k", "8k"], "tokens_per_param": 20}, tracks={}, budget={})
    loaded = load(path)
    assert list(loaded.suite.tracks) == ["2k", "4k", "8k"]
    assert loaded.suite.tracks["4k"].stop.tokens == 80_000
    assert loaded.suite.tracks["4k"].match.params == 4_000
    both = suite(scaling={"params": ["2k", "4k"]}, tracks={"own": {}})
    assert "give tracks or scaling, not both" in call("validate", both, status=2).stderr
    twice = suite(scaling={"params": ["2k", "2k"]}, tracks={})
    assert "params repeat" in call("validate", twice, status=2).stderr
