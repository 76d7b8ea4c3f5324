"""Which trials are made, that they are the same for everyone and after any interruption, and what they decide."""

import math
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from harness.execute.progress import key
from harness.execute.runner import _lookup
from harness.plan.expand import expand
from harness.plan.trials import STARTUP, choose, count, trials
from harness.records.meters import StopRule
from harness.records.record import Provenance, Record
from harness.records.spec import RunSpec
from harness.records.store import Store
from harness.suite.load import load

from ..made import make_record

RESULTS = Path(__file__).parents[3] / "results"
RATES = {"low": 1e-4, "high": 1e-2, "log": True}
TPE = {"sampler": "tpe", "trials": 12, "lr": RATES, "dropout": {"low": 0, "high": 0.3}, "weight_decay": [0.01, 0.1]}


@pytest.fixture
def tuned(suite):
    """The tiny suite, two architectures on one task, with this `tuning`."""
    return lambda **tuning: load(suite(tuning=tuning))


def per_cell(specs: list[RunSpec]) -> dict[str, list[RunSpec]]:
    return {name: [s for s in specs if s.architecture == name] for name in ("pre_ln", "lstm")}


def points(specs: list[RunSpec]) -> list[dict]:
    return [spec.point for spec in specs]


class Records:
    """The results of trials as a function of their points; those of the first `most` that were asked for."""

    def __init__(self, most: float = math.inf, failing: float = math.inf) -> None:
        self.most, self.failing, self.found = most, failing, {}

    def __call__(self, spec: RunSpec) -> Record | None:
        if spec.run_id not in self.found and len(self.found) < self.most:
            best = {"pre_ln": 5e-4, "lstm": 4e-3}[spec.architecture]
            value = abs(math.log10(spec.train.lr / best)) + spec.options["dropout"]
            status = "diverged" if spec.train.lr > self.failing else "ok"
            self.found[spec.run_id] = make_record(spec, value, status)
        return self.found.get(spec.run_id)


def test_a_grid_is_every_combination_for_everyone_in_a_fixed_order(tuned):
    loaded = tuned(dropout=[0, 0.2], lr=["1e-3", "1e-2"], warmup=["5%", "10%"], budget="50%", select="tune")
    cells = per_cell(trials(loaded))
    wanted = [(lr, warmup, dropout) for lr in (1e-3, 1e-2) for warmup in (0.05, 0.1) for dropout in (0, 0.2)]
    for specs in cells.values():
        assert [(s.train.lr, s.train.warmup, s.options["dropout"]) for s in specs] == wanted
        assert all(spec.train.weight_decay == 0.1 and "tuning" not in spec.to_dict() for spec in specs)
    tries, halved = trials(loaded), ("trial", 1000, StopRule("steps", 3), "tune")
    assert count(loaded) == len(tries) == len({key(spec) for spec in tries}) == 2 * 8
    assert {(s.kind, s.seed, s.stop, s.evaluate.split) for s in tries} == {halved}
    assert not {spec.run_id for spec in tries} & {spec.run_id for spec in expand(loaded)}
    assert cells["lstm"][1].title() == "mqar · lstm · trial lr 0.001, weight_decay 0.1, warmup 0.05, dropout 0.2"


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_points_that_need_no_results_are_known_at_once_and_go_on(sampler, tuned):
    tuning = {"sampler": sampler, "lr": RATES, "dropout": {"low": 0, "high": 0.3}, "weight_decay": [0.01, 0.1]}
    loaded = tuned(**tuning, trials=8)
    cells = per_cell(trials(loaded))
    assert points(cells["pre_ln"]) == points(cells["lstm"])
    assert count(loaded) == 2 * len(cells["lstm"]) == 16
    for spec in cells["lstm"]:
        lr = spec.train.lr
        assert 1e-4 <= lr <= 1e-2
        assert 0 <= spec.options["dropout"] <= 0.3
        assert spec.train.weight_decay in (0.01, 0.1)
        assert lr == float(f"{lr:.4g}")
    more = per_cell(trials(tuned(**tuning, trials=16)))["lstm"]
    assert [s.run_id for s in more[:8]] == [s.run_id for s in cells["lstm"]]
    other = trials(tuned(**tuning, trials=8, seed=7))
    assert points(other) != points(cells["lstm"])


def test_sobol_points_stand_one_in_each_eighth_of_a_range(tuned):
    specs = per_cell(trials(tuned(sampler="qmc", trials=8, lr=RATES, warmup={"low": 0, "high": "20%"})))["lstm"]
    assert sorted(int(8 * (math.log10(s.train.lr) + 4) / 2) for s in specs) == list(range(8))
    assert sorted(int(8 * s.train.warmup / 0.2) for s in specs) == list(range(8))


def test_tpe_starts_with_the_same_points_for_everyone_and_then_learns(tuned):
    loaded = tuned(**TPE)
    start = per_cell(trials(loaded))
    assert points(start["pre_ln"]) == points(start["lstm"])
    assert [spec.tuning.trial for spec in start["lstm"]] == list(range(STARTUP))
    done = per_cell(trials(loaded, Records()))
    assert [len(specs) for specs in done.values()] == [12, 12]
    assert points(done["lstm"])[:STARTUP] == points(start["lstm"])
    assert points(done["lstm"])[STARTUP:] != points(done["pre_ln"])[STARTUP:]
    assert count(loaded) == 24


def test_tpe_is_what_optuna_asks_for(tuned):
    optuna = pytest.importorskip("optuna")
    loaded, look = tuned(**TPE), Records(failing=5e-3)
    told = []
    for number, spec in enumerate(per_cell(trials(loaded, look))["lstm"]):  # each from the results before it alone
        sampler = optuna.samplers.TPESampler(seed=1000 + number, n_startup_trials=STARTUP, constant_liar=False)
        study = optuna.create_study(sampler=sampler)
        for one in told if number >= STARTUP else []:
            study.add_trial(one)
        trial = study.ask()
        trial.suggest_float("lr", 1e-4, 1e-2, log=True)
        trial.suggest_categorical("weight_decay", [0.01, 0.1])
        trial.suggest_float("dropout", 0, 0.3)
        assert {name: spec.point[name] for name in trial.params} == pytest.approx(trial.params, rel=1e-3)
        made = look(spec)
        value = made.metrics.valid["loss"] if made.status == "ok" else math.inf
        params = {name: spec.point[name] for name in trial.params}
        told.append(optuna.trial.create_trial(params=params, distributions=trial.distributions, value=value))


def test_tpe_goes_on_the_same_wherever_it_was_stopped(tuned):
    """In rounds over both cells; after any number of records the trials made and asked for are those of the whole."""
    loaded, result, made, rounds = tuned(**TPE), Records(), {}, 0
    while missing := [s for s in trials(loaded, lambda spec: made.get(spec.run_id)) if s.run_id not in made]:
        made.update((spec.run_id, result(spec)) for spec in missing)
        rounds += 1
    assert (len(made), rounds) == (24, 1 + 12 - STARTUP)
    whole = {name: [s.run_id for s in own] for name, own in per_cell(trials(loaded, result)).items()}
    for most in range(25):
        first = dict(list(made.items())[:most])
        for name, own in per_cell(trials(loaded, lambda spec, first=first: first.get(spec.run_id))).items():
            done = len(first.keys() & set(whole[name]))
            assert [s.run_id for s in own] == whole[name][: min(12, max(STARTUP, done + 1))]


@pytest.mark.parametrize(("made_with", "stands"), [("0.0", True), (None, True), (version("optuna"), False)])
def test_what_another_version_of_optuna_asked_for_stands(made_with, stands, tuned, tmp_path):
    loaded, store = tuned(**TPE | {"trials": 7}), Store("tiny", tmp_path)

    def leave(spec):
        packages = {} if made_with is None else {"optuna": made_with}
        store.write(make_record(spec, 1.0).replace(provenance=Provenance(packages=packages)))

    for spec in trials(loaded):
        leave(spec)
    asked = per_cell(trials(loaded, _lookup(store)))["lstm"][-1]
    leave(asked.at({"lr": 0.00777, "dropout": 0.2}))  # not what the version here asks for
    found = per_cell(trials(loaded, _lookup(store)))
    assert [len(specs) for specs in found.values()] == [STARTUP + 1, STARTUP + 1 + stands]
    assert (found["lstm"][STARTUP].train.lr == 0.00777) is stands
    assert found["lstm"][STARTUP].tuning.trial == STARTUP


def test_failed_trials_count_and_are_avoided(tuned):
    loaded = tuned(**TPE | {"trials": 25})
    lost = per_cell(trials(loaded, Records(failing=1e-3)))["pre_ln"]
    assert len(lost) == 25
    assert sum(spec.train.lr > 1e-3 for spec in lost[12:]) <= 4  # 12 of 13 if failures were not told
    assert len(trials(loaded, lambda spec: make_record(spec, None, "failed"))) == 50


@pytest.mark.parametrize(
    ("tried", "wanted"),
    [
        ([(1e-3, 0.1, 3.0, "ok"), (1e-2, 0.1, 2.0, "ok")], (1e-2, 0.1)),
        ([(1e-2, 0.1, 2.0, "ok"), (1e-3, 0.1, 2.0, "ok")], (1e-3, 0.1)),
        ([(1e-3, 0.2, 2.0, "ok"), (1e-3, 0.1, 2.0, "ok")], (1e-3, 0.2)),
        ([(1e-3, 0.1, 3.0, "ok"), (1e-2, 0.1, 2.0, "diverged")], (1e-3, 0.1)),
        ([(1e-2, 0.1, 0.0, "diverged"), (1e-3, 0.2, 0.0, "oom")], (1e-2, 0.1)),
        ([(1e-2, 0.1, None, "ok"), (1e-3, 0.2, 9.0, "ok")], (1e-3, 0.2)),
    ],
    ids=["best", "smaller rate", "earlier", "failed loses", "all failed", "no score loses"],
)
def test_the_rule(tried, wanted, tuned):
    specs = expand(tuned(lr=[1e-3]))
    trial = specs[0].replace(kind="trial")
    made = [make_record(trial.at({"lr": lr, "dropout": drop}), value, status) for lr, drop, value, status in tried]
    negated = [make_record(r.spec, -r.metrics.valid.get("loss", math.nan), r.status) for r in made]
    higher = [r.replace(metrics=replace(r.metrics, higher_is_better=True)) for r in negated]
    chosen = choose(specs, made)
    assert choose(specs, higher) == chosen, "where the metric says that higher is better"
    for spec, before in zip(chosen, specs, strict=True):
        if spec.cell == trial.cell:
            assert (spec.train.lr, spec.options["dropout"]) == wanted
            assert (spec.kind, spec.seed, spec.stop) == ("final", before.seed, before.stop)
        else:
            assert spec == before


def test_the_shipped_suites_keep_their_run_ids():
    """Published records are found by them."""
    assert {spec.run_id for spec in expand(load("quick"))} <= set(Store("quick", RESULTS).ids())
    loaded, store = load("fair"), Store("fair", RESULTS)
    tried = trials(loaded, _lookup(store))
    records = [store.read(spec.run_id) for spec in tried]
    chosen = choose(expand(loaded), records)
    assert {spec.run_id for spec in [*tried, *chosen]} == {record.run_id for record in store.records()}
