"""One run: what its record says, that it repeats, goes on exactly where it stopped, and owns up to divergence."""

import json

import pytest
import torch
from torch import nn

import zoo
from harness.plan.sizes import build_model, resolve_size
from harness.records.files import to_json
from harness.records.meters import StopRule
from harness.training.run import Run
from zoo.contract import Mixer, Traits
from zoo.ops import flops
from zoo.ops.kernel_log import log_kernel

from ..made import do, do_until, make_spec, make_trial, without_clock

STEPS = 12


def test_a_record_has_everything_that_others_rely_on(tmp_path):
    events, spec = [], make_spec()
    record = do(spec, tmp_path, report=events.append)
    assert (record.status, record.error, record.spec) == ("ok", None, spec)
    assert all(0 <= record.metrics.score(split) <= 1 for split in ("valid", "test"))
    assert record.eligibility.ranked
    assert record.provenance.kernels
    assert record.run_id == spec.run_id
    assert json.loads(to_json(record))["run_id"] == record.run_id
    assert [e["event"] for e in events if e["event"] != "step"] == ["start", "scoring"]
    assert record.curve[-1].tokens == record.budget.used.tokens
    assert sum(point.valid is not None for point in record.curve) == 4, "at 25, 50 and 75 %, and at the end"
    used = record.budget.used
    assert (used.steps, used.tokens) == (STEPS, STEPS * 32)
    assert used.flops == pytest.approx(record.budget.flops_per_token * used.tokens)
    assert used.seconds > 0
    assert record.size.params > record.size.params_non_embedding > 0


ALL = pytest.mark.with_all


@pytest.mark.parametrize(
    ("name", "dropout", "make"),
    [
        ("performer", 0.2, make_spec),
        ("rwkv4", 0.0, make_trial),
        *(pytest.param(*row, make_spec, marks=ALL) for row in (("pre_ln", 0.2), ("lstm", 0.0), ("s4d", 0.2))),
    ],
)
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(name, dropout, make, tmp_path):
    """Two runs of one spec, one of them in two parts, are the same."""
    what = make(name, options={"depth": 1, "width": 16, "dropout": dropout})
    whole = do(what, tmp_path / "whole")
    do_until(5, what, tmp_path / "cut")
    assert (tmp_path / "cut" / "checkpoint" / "state.pt").is_file()
    events = []
    cut = do(what, tmp_path / "cut", report=events.append)
    assert events[0]["resumed_at"] == 5
    assert (cut.data, cut.metrics) == (whole.data, whole.metrics)
    assert (cut.budget.used.tokens, cut.budget.used.steps) == (whole.budget.used.tokens, STEPS)
    assert without_clock(cut.curve) == without_clock(whole.curve)
    assert cut.provenance.kernels == whole.provenance.kernels
    assert [segment.from_step for segment in cut.segments] == [0, 5]
    assert cut.eligibility.ranked is (what.kind == "final"), cut.eligibility.gates


def test_a_record_names_the_kernels_of_its_training_steps_alone(tmp_path):
    """A form that runs while a model is scored, judged or counted trained nothing; one of an earlier segment did."""

    class Logging(Mixer):
        traits = Traits(causal="strict", bidirectional=False, resumable=False)
        training_form = "loops"

        def __init__(self, context):
            super().__init__(context)
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x, *, mask=None, state=None):
            log_kernel("mean", self.training_form if self.training and not flops.counting() else "torch")
            return self.w * x.cumsum(1), None

    zoo.register("logging")(Logging)
    assert do(make_spec("logging"), tmp_path / "whole").provenance.kernels["mean"] == "loops"
    do_until(5, make_trial("logging"), tmp_path / "cut")
    Logging.training_form = "naive"
    assert do(make_trial("logging"), tmp_path / "cut").provenance.kernels["mean"] == "loops; naive"


def test_architectures_of_one_seed_see_one_stream_and_seeds_have_their_own(tmp_path):
    """A stream is marked on its way, so that runs of other lengths can be compared."""

    def stream_of(name, seed, steps=4):
        spec = make_trial(name, seed=seed, stop=StopRule("steps", steps))
        return do(spec, tmp_path / spec.run_id).data

    first, other, longer = stream_of("pre_ln", 0), stream_of("pre_ln", 1), stream_of("lstm", 0, steps=9)
    assert first.stream_hash != other.stream_hash
    assert (list(first.stream_marks), list(longer.stream_marks)) == (["1", "2", "4"], ["1", "2", "4", "8"])
    assert first.stream_marks.items() <= longer.stream_marks.items()
    assert first.stream_marks["4"] == first.stream_hash


def test_a_rate_beyond_reason_diverges_and_says_so(tmp_path):
    wild = {"lr": 1e9, "clip": 0.0, "warmup": 0.0}
    record = do(make_spec(train=wild, stop=StopRule("steps", 200)), tmp_path)
    assert (record.status, record.error.kind) == ("diverged", "Diverged")
    assert "at step" in record.error.message
    assert (record.metrics.test, record.eligibility.ranked) == ({}, False)
    assert json.loads(to_json(record))["status"] == "diverged"


def test_a_trial_is_scored_on_the_split_it_tunes_on_and_a_damaged_checkpoint_is_said(tmp_path):
    """The run starts anew."""
    events = []
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "state.pt").write_bytes(b"half a checkpo")
    record = do(make_trial(), tmp_path, report=events.append)
    assert "starting anew" in next(e["message"] for e in events if e["event"] == "note")
    assert (record.status, record.budget.used.steps) == ("ok", STEPS)
    assert record.metrics.tune
    assert record.metrics.test == {}
    assert not record.eligibility.ranked
    do_until(5, make_trial(), tmp_path / "cut")
    do(make_trial(seed=7), tmp_path / "cut", report=events.append)
    assert [e["resumed_at"] for e in events if e["event"] == "start"] == [0, 0]  # not another run's


def test_a_model_depends_on_its_seed_alone():
    def first_weight(seed):
        torch.rand(seed + 3)  # the generator's state before does not matter
        spec = make_spec(seed=seed)
        task = spec.build_task()
        return next(build_model(spec, task, resolve_size(spec, task)).parameters()).detach()

    assert torch.equal(first_weight(0), first_weight(0))
    assert not torch.equal(first_weight(0), first_weight(1))


def test_what_an_architecture_brings_along_is_trained_with_and_can_be_left_out(tmp_path):
    """Label smoothing in the loss, not in the scores; a schedule of its own."""

    def run(**options):
        spec = make_spec("transformer_2017", options={"depth": 1, "width": 16, **options})
        task = spec.build_task()
        return Run(spec, task, resolve_size(spec, task), tmp_path, lambda event: None)

    own, plain = run(), run(label_smoothing=0.0, schedule=None)
    assert (own.schedule, plain.schedule) == ("inverse_sqrt", "cosine")
    batch = own.task.batch("train", 0, 0, size=4).tensors()
    logits = torch.randn(*batch.targets.shape, own.task.shape.outputs)
    counted = torch.ones_like(batch.targets, dtype=torch.bool) if batch.counted is None else batch.counted
    log_p = logits.log_softmax(-1)
    right = log_p.gather(-1, batch.targets[..., None])[..., 0]
    smooth = -(0.9 * right + 0.1 * log_p.mean(-1))[counted].mean()
    torch.testing.assert_close(own.loss(logits, batch), smooth)
    torch.testing.assert_close(plain.loss(logits, batch), -right[counted].mean())
    assert own.task.totals(logits, batch) == plain.task.totals(logits, batch)
