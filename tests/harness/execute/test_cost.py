"""What a suite costs elsewhere: the queue beside closed forms, and where the seconds of a step come from."""

import dataclasses
import json
import math

import pytest

from harness.execute import cost as costs
from harness.execute.estimate import Planned
from harness.execute.queue import simulate
from harness.plan.expand import expand
from harness.records.meters import Meters
from harness.records.record import Budget, Metrics, Provenance, empty_record
from harness.records.record import Size as RecordSize
from harness.records.store import Store
from harness.suite.load import load
from zoo.size import Size

H100 = "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(("runs", "slots"), [(10, 4), (8, 4), (1, 10_000), (7, 1)])
def test_equal_runs_go_in_waves(runs, slots):
    queue = simulate([[5.0] * runs, [5.0] * runs], slots, start=1.0)
    assert queue.wall == 2 * math.ceil(runs / slots) * 6.0, "a round waits for the one before"
    assert (queue.busy, queue.lost, queue.lost_runs) == (2 * runs * 6.0, 0.0, 0)


def test_a_failure_costs_half_a_checkpoint_and_a_start():
    rate, start, checkpoint = 0.5 / 3600, 20.0, 120.0
    queue = simulate([[7200.0] * 4000], 512, start=start, failures=rate, checkpoint=checkpoint, retries=99)
    assert queue.lost / queue.busy == pytest.approx(rate * (checkpoint / 2 + start), rel=0.05)
    assert queue.busy - queue.lost == pytest.approx(4000 * 7220)
    assert queue.lost_runs == 0


def test_a_run_may_fail_as_often_as_retries_say():
    """Without checkpoints an attempt of u seconds fails with p = 1 − exp(−λu), and a run is lost with p³."""
    rate = 1 / 3600
    queue = simulate([[1800.0] * 20_000], 10_000, failures=rate, checkpoint=1e9, retries=2)
    assert queue.lost_runs / 20_000 == pytest.approx((1 - math.exp(-0.5)) ** 3, rel=0.05)
    assert queue.busy - queue.lost == pytest.approx((20_000 - queue.lost_runs) * 1800)


@pytest.fixture
def planned(suite):
    """The tiny suite, and a plan of it: steps of half a second here."""
    loaded = load(str(suite(tuning={"lr": [1e-3, 1e-2], "budget": 0.5})))
    size = Size(8, 1, 100, 100, None)
    names = ("pre_ln", "lstm")
    return loaded, [Planned(n, "mqar", "", 2, 2, 2, size, "", 192, 6, 1e6, 3.0, 1.0, 0.5, kernels=100) for n in names]


def test_measured_here(planned):
    """Four trials of half the length, then four runs, on three devices."""
    found = costs.cost(planned[1], planned[0], "cpu", 3, price=2.0)
    trial, run = (costs.START + 3 * share * (1 + costs.ALONG) + scores for share, scores in ((0.5, 0.5), (1, 1)))
    assert found.wall_seconds[1] == pytest.approx(2 * trial + 2 * run)
    assert found.device_hours == pytest.approx([4 * (trial + run) / 3600] * 3)
    assert found.price == pytest.approx([2 * hours for hours in found.device_hours])
    assert found.in_use == pytest.approx(4 / 6)
    assert found.sources == {"measured here": 2}


def test_recorded_and_extrapolated(planned, tmp_path, monkeypatch):
    """One row has records of another seed and rate on that kind of device; those of a slice of one do not count."""
    loaded, cells = planned
    monkeypatch.setattr(costs, "_matmul_speed", lambda device, precision: 67e9)
    for seed, hardware, seconds in ((5, H100, 0.1), (6, H100, 0.3), (7, f"{H100} MIG 1g.10gb", 99.0)):
        spec = expand(loaded)[0].at({"lr": 0.5}).replace(seed=seed)
        record = empty_record(spec, "other", Metrics("accuracy"), "ok").replace(
            size=RecordSize(**dataclasses.asdict(cells[0].size)),
            budget=Budget(spec.stop, used=Meters(64, 2, 10, seconds)),
            provenance=Provenance(hardware=hardware, precision="fp32"),
        )
        Store("other", tmp_path).write(record)
    paces = costs._paces(cells, loaded, "h100", tmp_path)
    assert [pace.source for pace in paces.values()] == ["in records of h100", costs.EXTRAPOLATED]
    ratios = [pace.ratio for pace in paces.values()]
    assert ratios == pytest.approx([0.1 / 0.5, 0.1 / 0.5]), "records correct what is extrapolated beside them"
    paces = costs._paces(cells, loaded, "a100", tmp_path)
    assert [pace.ratio for pace in paces.values()] == pytest.approx([67e9 / 19.5e12] * 2), "fp32, above 1 ms of kernels"
    found = costs.cost(cells, loaded, "a100", 1, root=tmp_path)
    low, likely, high = found.wall_seconds
    assert (low, high) == pytest.approx((likely / costs.RANGE, likely * costs.RANGE))
    about, *notes = costs.lines([found])
    assert about.startswith("a100:1: ~")
    assert about.endswith("steps extrapolated for 2 rows")
    assert notes[0].startswith("extrapolated, not measured")


def test_the_command(suite, call, tmp_path):
    options = ("--results", tmp_path, "--price", "h100=3", "--failures", 0.1)
    found = json.loads(call("plan", suite(), "--on", "H100:8", "--on", "cpu", *options, "--json").stdout)
    assert all(cell["kernels"] > 10 for cell in found["cells"])
    gpu, cpu = found["costs"]
    assert (gpu["kind"], gpu["devices"], gpu["sources"]) == ("h100", 8, {"extrapolated": 2})
    assert (cpu["devices"], cpu["price"], cpu["sources"]) == (1, None, {"measured here": 2})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--on", "h10:8"], "known: cpu, a100"),
        (["--on", "h100:0"], "expected KIND or KIND:N"),
        (["--on", "h100:2.5"], "expected KIND or KIND:N"),
        (["--on", "h100", "--price", "nan"], "'nan' is not a number"),
        (["--on", "h100", "--on", "l4", "--price", "2"], "of which device"),
        (["--on", "h100", "--failures", "-1"], "must be zero or more"),
        (["--price", "2"], "of which device"),
        (["--failures", "1"], "of which devices"),
        (["--on", "cpu:2", "--set", "limits.devices=3"], "trained on 3 devices"),
    ],
)
def test_wrong_options_are_said(options, said, suite, call):
    assert said in call("plan", suite(), *options, status=2).stderr
