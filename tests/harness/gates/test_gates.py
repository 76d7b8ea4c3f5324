"""The gates catch what they are named for, and let an honest model through."""

import dataclasses
from contextlib import nullcontext

import pytest
import torch
from torch import nn

import tasks
from harness.gates import float64, flow, registry
from harness.gates.judge import judge as judged
from harness.gates.measure import result, worst
from harness.gates.registry import gate, gates
from harness.gates.subject import Subject
from harness.gates.watch import Watch
from harness.plan.expand import expand
from harness.records.checks import gates_for
from harness.records.meters import Meters, StopRule
from harness.records.record import Size
from harness.records.spec import MatchRule
from harness.suite.load import load
from harness.training.evaluate import evaluate
from zoo import size as sizing
from zoo.build import assemble
from zoo.types import Part, Recipe

from .conftest import Peek, Plain

TASK = tasks.build("mqar", length=16, pairs=3, vocab=16)


def subject(mixer, mismatch=None, match=None, task=TASK):
    """What the gates would see of a run that ended before its first step."""
    recipe, shape = Recipe(mixer=Part(mixer), depth=2), dataclasses.replace(task.shape, width=16)

    def build(seed):
        torch.manual_seed(seed)
        return assemble(recipe, task.role, shape)

    model = build(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)  # as after training: nothing hidden by tiny weights
    inside = sizing.parameters(model, "non_embedding")
    optimizer = torch.optim.AdamW(model.parameters())
    return Subject(
        model=model,
        task=task,
        size=Size(16, 2, sizing.parameters(model), inside, None, None, mismatch),
        match=match,
        build=build,
        score=lambda model, task: evaluate(model, task, "test", size=8, limit=8),
        loss=task.loss,
        build_task=lambda: task,
        watch=Watch(model, optimizer, task.loss, nullcontext),
        seed=0,
        stop=StopRule("steps", 1),
        used=Meters(),
        step=Meters(),
        examples=8,
        groups=lambda: optimizer.param_groups,
    )


def judge(*args, asked=None, **kwargs):
    """What the gates say: all that apply, or those asked."""
    return judged(subject(*args, **kwargs), () if asked is None else gates().keys() - asked)


@pytest.fixture(scope="module")
def honest():
    return judge(Plain)


def failed(found):
    return {name for name, gate in found.gates.items() if not gate.passed}


def test_an_honest_mixer_passes(honest):
    assert failed(honest) == set()
    assert honest.ranked
    assert honest.gates.keys() == gates_for("lm", matched=False)
    assert all(gate.about for gate in honest.gates.values())


def test_a_size_off_the_match_is_not_ranked():
    rule, asked = MatchRule("params", 1000, 0.05), {"matched_size"}
    for mismatch, passes in ((-0.05, True), (0.06, False)):
        found = judge(Plain, mismatch, rule, asked=asked)
        assert found.gates["matched_size"].passed is found.ranked is passes
    assert not judge(Plain, None, rule, asked=asked).gates, "nothing is matched"


def test_nan_passes_no_gate():
    class Broken(Plain):
        def past(self, x):
            return x * float("nan")

    asked = {"normalised", "gradient_leak", "held_out_gap"}
    assert failed(judge(Broken, asked=asked)) == asked


def test_judging_leaves_the_model_in_the_mode_it_was_in():
    one = subject(Plain)
    for mode in (True, False):
        one.model.train(mode)
        judged(one, gates().keys() - {"causal", "declared_size"})
        assert one.model.training is mode


def test_a_decoder_that_reads_ahead_in_its_answer_is_caught():
    task, asked = tasks.build("reverse", length=6, vocab=8), {"causal", "gradient_leak"}
    assert failed(judge(Plain, task=task, asked=asked)) == set()
    found = judge(Peek, task=task, asked=asked)
    assert failed(found) == asked
    assert not found.ranked
    assert all(gate.measured > 1e6 * gate.limit for gate in found.gates.values())


def test_a_model_that_computes_in_less_has_a_coarser_limit_and_says_so(honest):
    class Single(Plain):
        def past(self, x):
            spectrum = torch.fft.rfft(x.float(), 2 * x.shape[1], dim=1)
            return torch.fft.irfft(spectrum, 2 * x.shape[1], dim=1)[:, : x.shape[1]].to(x.dtype)

    said = judge(Single, asked={"causal"}).gates["causal"]
    assert said.passed
    assert said.measured > 1e-9 > 1e3 * honest.gates["causal"].measured
    assert said.limit == 1e-5
    assert "computes in less" in said.about


def test_what_skipped_gates_leave_in_a_record(honest):
    asked = {"normalised", "repeatable"}
    found = judge(Plain, asked=asked)
    assert found.gates.keys() == asked
    assert found.to_dict()["skipped"] == sorted(gates().keys() - asked)
    assert "skipped" not in honest.to_dict()


def test_the_gates_that_apply_depend_on_the_role():
    assert gates_for("lm", matched=True) == gates().keys()
    assert gates().keys() - gates_for("classify", matched=False) == {
        *("causal", "gradient_leak", "matched_size", "decodes")
    }


def test_a_gate_is_added_where_it_is_written(monkeypatch):
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))

    @gate("too many parameters", roles=("lm",))
    def thrifty(subject):
        return result(sum(p.numel() for p in subject.model.parameters()), 10, "parameters")

    assert gates()["thrifty"].reason == "too many parameters"
    found = judge(Plain, asked={"thrifty"})
    assert not found.gates["thrifty"].passed
    assert not found.ranked
    assert not gates()["thrifty"].applies("classify", matched=True)


def test_of_several_measures_the_one_furthest_over_its_limit_is_told():
    close, over, none = result(0.9, 1.0, "close"), result(2e-9, 1e-9, "over"), result(0.0, 0.0, "none")
    assert worst(none, close, over).about == "over"
    assert worst(close, none).about == "close"
    assert worst(over, result(float("nan"), 1.0, "nan")).about == "nan"
    assert worst(over, result(1, 0, "forbidden")).about == "forbidden"


def test_a_suite_that_skips_nothing_keeps_its_run_ids(tmp_path):
    text = "suite: s\narchitectures: [lstm]\ntasks:\n  - mqar: {length: 8, pairs: 2, vocab: 16}\nseeds: [0]\n"
    specs = []
    for name, more in (("a", ""), ("b", "evaluate: {skip_gates: [untrained, causal]}\n")):
        (tmp_path / f"{name}.yaml").write_text(text + more)
        specs += expand(load(tmp_path / f"{name}.yaml"))
    plain, skipping = specs
    assert "skip_gates" not in plain.to_dict()["evaluate"]
    assert skipping.to_dict()["evaluate"]["skip_gates"] == ["causal", "untrained"]
    assert plain.run_id != skipping.run_id


def test_a_gate_that_replaces_nothing_would_see_nothing(monkeypatch):
    """What the gate of causality finds, it finds by its replacements; what it lets pass, by its limit."""
    monkeypatch.setattr(flow, "_other_future", lambda model, batch, *_: batch)
    monkeypatch.setattr(flow, "_enlarged", lambda *_: nullcontext())
    assert judge(Peek, asked={"causal"}).ranked
    monkeypatch.undo()
    assert not judge(Peek, asked={"causal"}).ranked
    monkeypatch.setattr(float64, "FINE", 1e3)
    monkeypatch.setattr(flow, "AS_SCORED", 1e3)
    assert judge(Peek, asked={"causal"}).ranked
