"""Tracks: one task under several budgets, each ranked apart; matching on every meter; targets that end a run."""

import pytest
import torch

from harness.errors import UserError
from harness.gates.registry import gates
from harness.plan.expand import expand
from harness.plan.sizes import build_model, matched, resolve_size, step_flops
from harness.plan.trials import trials
from harness.records.meters import StopRule
from harness.records.spec import Cell
from harness.suite.load import load
from zoo import size as sizing
from zoo.types import Unsupported

from ..made import do

MQAR = {"mqar": {"length": 16, "pairs": 2, "vocab": 16}}
BASE = {
    "suite": "fairish",
    "architectures": ["pre_ln", "lstm"],
    "tasks": [MQAR],
    "model": {"depth": 2, "heads": 2},
    "budget": {},
    "train": {},
    "evaluate": {"every": "25%", "valid": 16, "test": 16, "skip_gates": list(gates())},
}
TRACKS = {
    "params": {"match": {"params": "20k", "tolerance": "10%"}, "stop": {"tokens": 512}},
    "flops": {"match": {"flops_per_token": "120k"}, "stop": {"tokens": 512}},
    "state": {"match": {"state_bytes": "1k", "tolerance": "20%"}, "stop": {"steps": 2}},
    "tokens": {"match": "none", "model": {"width": 16}, "stop": {"tokens": 512}},
}


@pytest.fixture
def suite(suite):
    """Loads the suite above with some keys replaced."""
    return lambda **changes: load(suite(**BASE | changes))


def test_every_task_is_played_in_every_track(suite):
    loaded = suite(tracks=TRACKS, tuning={"lr": [1e-3, 3e-3], "budget": "50%"})
    specs, tries = expand(loaded), trials(loaded)
    assert {spec.cell for spec in specs} == {Cell(a, "mqar", t) for a in BASE["architectures"] for t in TRACKS}
    assert len(specs) == 4 * 2 * 2
    half = dict.fromkeys(TRACKS, StopRule("tokens", 256))
    assert {spec.track: spec.stop for spec in tries} == half | {"state": StopRule("steps", 1)}


def test_a_track_may_be_of_some_tasks_alone(suite):
    tasks = [MQAR, {**MQAR, "as": "again"}]
    both = {"stop": {"steps": 2}}
    loaded = suite(tasks=tasks, tracks={"all": both, "few": both | {"tasks": ["again"]}})
    played = [("mqar", "all"), ("again", "all"), ("again", "few")]
    assert {(spec.task_label, spec.track) for spec in expand(loaded)} == {*played}
    assert loaded.described([])["order"] == [[*table] for table in played]
    with pytest.raises(UserError, match="'mqar' is in no track"):
        suite(tasks=tasks, tracks={"few": both | {"tasks": ["again"]}})


def test_a_track_goes_before_the_task_and_the_suite(suite):
    task = {**MQAR, "match": {"params": "9k"}, "stop": {"steps": 9}}
    tracks = {"own": {"stop": {"steps": 3}}, "free": {"match": "none", "model": {"width": 8}}}
    specs = {spec.track: spec for spec in expand(suite(tasks=[task], tracks=tracks))}
    own, free = specs["own"], specs["free"]
    assert (own.match.target, own.stop) == (9000, StopRule("steps", 3))
    assert (free.match, free.stop, free.options["width"]) == (None, StopRule("steps", 9), 8)


def test_without_tracks_nothing_changes_a_run_id(suite):
    spec = expand(suite())[0]
    assert spec.track == ""
    assert "track" not in spec.to_dict()
    match = {"params": 9000, "count": "non_embedding", "tolerance": 0.05}
    assert expand(suite(budget={"match": {"params": "9k"}}))[0].to_dict()["match"] == match
    apart = [expand(suite(tracks={name: {}}))[0] for name in ("a", "b")]
    assert len({s.run_id for s in [spec, *apart]}) == 3


@pytest.mark.parametrize(("track", "target"), [("params", 20_000), ("flops", 120_000), ("state", 1_000)])
@pytest.mark.parametrize("row", [0, 1])
def test_sizes_are_matched_on_the_real_model(suite, track, target, row):
    """What the solved model has, measured again on the one that is trained, is within tolerance of the target."""
    loaded = suite(tracks={track: TRACKS[track]}, seeds=[0])
    spec = expand(loaded)[row]
    task, random_state = spec.build_task(), torch.get_rng_state()
    size = resolve_size(spec, task)
    assert torch.equal(torch.get_rng_state(), random_state), "matching leaves randomness alone"
    model = build_model(spec, task, size)
    measured = {
        "params": lambda: sizing.parameters(model, "non_embedding"),
        "flops": lambda: step_flops(spec, task, model) / 1024,
        "state": lambda: sizing.recurrent_state_bytes(model, 16),
    }[track]()
    assert size.target == target
    assert measured / target - 1 == pytest.approx(size.mismatch)
    assert matched(spec, task, model) == measured
    assert abs(size.mismatch) <= spec.match.tolerance


def test_what_cannot_be_matched_is_a_row_that_says_so(suite):
    loaded = suite(architectures=["reformer", "pre_ln"], tracks={"state": {"match": {"state_bytes": 8}}})
    stateless, cache = expand(loaded)[:2]
    for spec, reason in ((stateless, "carries nothing from step to step"), (cache, "cannot be matched on state_bytes")):
        with pytest.raises(Unsupported, match=reason):
            resolve_size(spec, spec.build_task())


def test_stop_rules():
    rule = StopRule.from_dict({"target": 2.5, "tokens": 100})
    assert (rule.meter, rule.limit, rule.target) == ("tokens", 100, 2.5)
    assert [rule.reached(s, higher_is_better=False) for s in (2.6, 2.5, 2.4, None)] == [False, True, True, False]
    assert [rule.reached(s, higher_is_better=True) for s in (2.6, 2.5, 2.4)] == [True, True, False]
    assert not StopRule("tokens", 100).reached(-1e9, higher_is_better=False)


@pytest.mark.slow
def test_a_run_ends_at_its_target(suite, tmp_path):
    match = {"params": "5k", "tolerance": 1}
    stops = {"easy": {"target": 0.0, "steps": 8}, "hopeless": {"target": 1.0, "steps": 8}, "plain": {"steps": 8}}
    tracks = {name: {"match": match, "stop": stop} for name, stop in stops.items()}
    loaded = suite(architectures=["pre_ln"], tracks=tracks, seeds=[0])
    records = [do(spec, tmp_path / spec.run_id) for spec in expand(loaded)]
    found = {record.spec.track: (record.budget.used.steps, record.budget.reached) for record in records}
    assert found == {"easy": (2, True), "hopeless": (8, False), "plain": (8, None)}, "valid is scored at step 2"
    assert "reached" not in records[-1].budget.to_dict()
