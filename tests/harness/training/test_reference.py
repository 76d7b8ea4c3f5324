"""The reference beside a run: what it measures, when, and that the run does not notice it."""

import pytest
import torch

from harness.records.meters import Meters, StopRule
from harness.training import reference, train
from harness.training.reference import Reference, due, ratio
from harness.training.run import Run
from tasks.parts import Part

from ..made import do, do_until, make_spec, make_trial, without_clock


class Clock:
    """Time as the test says: a step of the run takes `ours`, one of the reference `theirs` seconds; neither trains."""

    def __init__(self, monkeypatch, ours=0.25, theirs=0.5):
        self.now, self.theirs_made = 0.0, 0
        monkeypatch.setattr(train.time, "perf_counter", lambda: self.now)

        def run_step(*args, **kwargs):
            self.now += ours
            return 1.0, 1.0

        def reference_step(*args, **kwargs):
            self.theirs_made += 1
            self.now += theirs
            return 1.0, 1.0

        monkeypatch.setattr(train, "descend", run_step)
        monkeypatch.setattr(reference, "descend", reference_step)


def test_a_run_does_not_notice_its_reference(tmp_path, monkeypatch):
    """Dropout and random features draw from the generator that the reference must leave alone."""
    what, states, plain = make_spec("performer", options={"depth": 1, "width": 16, "dropout": 0.2}), [], Run.score

    def score(self, *args):
        states.append(torch.get_rng_state())
        return plain(self, *args)

    monkeypatch.setattr(Run, "score", score)
    beside = do(what, tmp_path / "beside")
    monkeypatch.setattr(Reference, "time_reference", lambda *_: None)
    alone = do(what, tmp_path / "alone")
    half = len(states) // 2
    assert all(torch.equal(a, b) for a, b in zip(states[:half], states[half:], strict=True))
    assert (beside.speed.reference.steps, beside.speed.relative > 0) == (3, True)
    assert (alone.speed.relative, alone.speed.reference.problem is None) == (None, False)
    assert without_clock(beside.curve) == without_clock(alone.curve)
    assert (beside.metrics, beside.data) == (alone.metrics, alone.data)
    assert beside.provenance.kernels == alone.provenance.kernels
    passed = [{n: g.passed for n, g in r.eligibility.gates.items()} for r in (beside, alone)]
    assert passed[0] == passed[1]


def test_its_seconds_are_off_the_clock_its_speed_is_the_ratio_and_a_resumed_run_goes_on(tmp_path, monkeypatch):
    """12 steps of 0.25 s beside a reference of 0.5 s, which would take 1 % of 3 s with no step at all."""
    clock, spec = Clock(monkeypatch), make_trial()
    record = do(spec, tmp_path / "whole")
    used, speed, beside = record.budget.used, record.speed, record.speed.reference
    assert (used.steps, used.seconds) == (12, 3.0)
    assert (beside.steps, beside.step_seconds, beside.drift, beside.tokens_per_s) == (3, 0.5, 1.0, 64.0)
    assert (speed.train_tokens_per_s, speed.relative, speed.seconds_in_reference_steps) == (128.0, 2.0, 6.0)
    assert clock.theirs_made == 3 + 3, "one uncounted in each of three timings, three timed"
    width, depth, vocab, length = 64, 2, 16, 8
    layer = 4 * width * (width + 1) + 2 * 4 * width**2 + 5 * width + 4 * width
    head = vocab * width + length * width + 2 * width + spec.build_task().shape.outputs * (width + 1)
    assert beside.parameters == pytest.approx(depth * layer + head, rel=0.02)

    do_until(8, spec, tmp_path / "cut")
    held = torch.load(tmp_path / "cut" / "checkpoint" / "state.pt", weights_only=True)["progress"]
    assert [timing["steps"] for timing in held["reference"]] == [1, 6]
    again = do(spec, tmp_path / "cut")
    assert again.speed == record.speed
    assert again.memory == record.memory


def test_a_machine_that_slows_down_moves_the_seconds_and_not_the_ratio(tmp_path, monkeypatch):
    """Both take twice as long from half of the run on."""
    clock = Clock(monkeypatch, theirs=0.001)
    plain, timed, slow = train.step, reference._seconds, []

    def step(run, batch):
        plain(run, batch)
        if slow:
            run.progress.used.seconds += 0.25
        elif run.progress.used.steps >= 100:
            slow.append(True)

    monkeypatch.setattr(train, "step", step)
    monkeypatch.setattr(reference, "_seconds", lambda step: timed(step) * (2 if slow else 1))
    record = do(make_trial(stop=StopRule("steps", 200)), tmp_path)
    assert record.budget.used.seconds == 75.0
    assert record.speed.reference.drift == pytest.approx(2.0)
    assert record.speed.relative == pytest.approx(1 / 250)
    assert record.speed.seconds_in_reference_steps == pytest.approx(50_000)
    assert clock.theirs_made > 100


def test_how_often():
    """By hand: three timed steps of 1 s in three timings cost 6 s; one more timing makes it 8 s, 1 % of 800 s."""
    three = [{"steps": steps, "seconds": steps / 4, "timed": [1.0]} for steps in (1, 6, 12)]
    assert due(three, 799.0, 1.0) == 0
    assert due(three, 801.0, 0.5) == 1
    early = {(0, 0.01): 1, (1, 0.49): 0, (1, 0.5): 1, (2, 0.99): 0, (2, 1.0): 1}
    assert {at: due(three[: at[0]], 3.0, at[1]) for at in early} == early
    assert due([], 3.0, 1.0) == 3, "a run of one step has only its end"


def test_what_it_costs_stays_within_its_share(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, ours=1.0, theirs=0.25)
    timed = do(make_trial(stop=StopRule("steps", 600)), tmp_path).speed.reference.steps
    assert timed == 12, "of 600 s 6 s are left to it, two steps of 0.25 s a timing"
    assert clock.theirs_made == 2 * timed


@pytest.fixture
def lone():
    """A reference without a run."""
    spec = make_trial()
    task = spec.build_task()
    batch = task.batch("train", 0, 0, size=2)
    return Reference(task, [Part(batch)], device=torch.device("cpu"), precision="fp32", train=spec.train)


def test_relative_speed_by_hand(lone):
    """A slow spell that both go through does not move it; one timing gone wrong does not either."""
    marks = (
        (10, 1.0, [0.2]),  # 0.1 s a step: 2
        (20, 5.0, [0.8]),  # 0.4 s a step, everything four times slower: 2
        (30, 6.0, [9.9]),  # 99
        (40, 7.0, [0.1, 0.3, 0.2]),  # 2
    )
    timings = [{"steps": steps, "seconds": seconds, "timed": timed} for steps, seconds, timed in marks]
    said = lone.speed(timings, Meters(tokens=4000, steps=40, seconds=7.0))
    assert said.relative == pytest.approx(2.0)
    assert said.seconds_in_reference_steps == pytest.approx(20.0)
    assert said.reference.step_seconds == pytest.approx(0.25), "of .1 .2 .2 .3 .8 9.9"
    assert said.reference.drift == pytest.approx(5.35 / 0.15), "halves between neighbours: .1 .2 and .8 9.9"
    assert said.reference.tokens_per_s == pytest.approx(400.0)
    assert ratio([[1.0], [2.0]], [[3.0], [8.0]]) == 3.5


def test_every_step_is_the_same_work_and_random_state_is_left_alone(lone):
    """Its weights stay, so that nothing it computes can become easier, harder or denormal."""
    torch.manual_seed(7)
    losses, timings, before, plain = [], [], torch.get_rng_state(), lone.task.loss

    def loss(logits, batch):
        value = plain(logits, batch)
        losses.append(value.item())
        return value

    lone.task.loss = loss
    lone.time_reference(timings, Meters(steps=5, seconds=1.0), 0.2)
    assert torch.equal(torch.get_rng_state(), before)
    lone.time_reference(timings, Meters(steps=5, seconds=1.0), 1.0)
    assert [len(timing["timed"]) for timing in timings] == [3], "a second timing at one step goes on with the first"
    assert len(losses) == (1 + 1) + (1 + 2), "in each timing one that is not counted, at first the one after building"
    assert len({*losses}) == 1


def test_one_that_cannot_be_says_why_and_the_run_goes_on(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise torch.OutOfMemoryError("no memory\nleft")

    monkeypatch.setattr(reference, "descend", refuse)
    record = do(make_trial(), tmp_path)
    assert record.status == "ok"
    assert record.speed.reference.problem == "OutOfMemoryError: no memory left"
    assert (record.speed.relative, record.speed.seconds_in_reference_steps) == (None, None)
    assert record.speed.train_tokens_per_s > 0
