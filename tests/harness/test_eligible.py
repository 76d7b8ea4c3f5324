"""The gates catch what they are named for, and let an honest model through."""

import dataclasses

import pytest
import torch
from torch import nn

import tasks
from harness.eligible import gates, verdict
from zoo.contract import Mixer, Traits
from zoo.heads import assemble
from zoo.terms import Part, Recipe, Shape

TASK = tasks.build("mqar", length=16, pairs=3, vocab=16)


class Honest(Mixer):
    """The mean of what was so far."""

    traits = Traits(causal="strict", bidirectional=False, resumable=False)

    def mix(self, x):
        return x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]

    def forward(self, x, *, mask=None, state=None):
        return self.mix(x), None


class Peeking(Honest):
    """A convolution padded on both sides: output t sees input t + 1."""

    def __init__(self, site):
        super().__init__(site)
        self.conv = nn.Conv1d(site.width, site.width, 3, padding=1)

    def mix(self, x):
        return self.conv(x.mT).mT


class BatchStatistics(Honest):
    """Normalised over the batch axis, in eval mode too."""

    def mix(self, x):
        x = super().mix(x)
        return (x - x.mean(0)) / (x.std(0, unbiased=False) + 1.0)


class Restless(Honest):
    """Noise in eval mode."""

    def mix(self, x):
        return super().mix(x) + 0.1 * torch.randn_like(x)


def judge(mixer, size=None, match=None, task=TASK):
    torch.manual_seed(0)
    recipe = Recipe(mixer=Part(mixer), depth=2)
    model = assemble(recipe, task.role, dataclasses.replace(task.shape, width=16))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)  # as after training: nothing hidden by tiny weights
    return verdict(gates(model, task, size or {}, match))


def failed(found):
    return {name for name, gate in found["gates"].items() if not gate["passed"]}


def test_an_honest_mixer_passes():
    found = judge(Honest)
    assert failed(found) == set()
    assert found["ranked"]
    assert set(found["gates"]) == {"repeatable", "batch_independent", "causal"}
    assert all({"passed", "measured", "limit", "about"} <= set(gate) for gate in found["gates"].values())


@pytest.mark.parametrize(("mixer", "gate"), [(Peeking, "causal"), (BatchStatistics, "batch_independent")])
def test_a_fault_fails_its_own_gate_alone(mixer, gate):
    found = judge(mixer)
    assert failed(found) == {gate}
    assert not found["ranked"]
    assert found["gates"][gate]["measured"] > 10 * found["gates"][gate]["limit"]


def test_randomness_fails_the_gate_of_repeatability():
    assert "repeatable" in failed(judge(Restless))


@pytest.mark.parametrize(("mismatch", "passes"), [(0.04, True), (-0.05, True), (0.06, False), (-0.2, False)])
def test_a_size_off_the_match_is_not_ranked(mismatch, passes):
    found = judge(Honest, {"mismatch": mismatch}, {"tolerance": 0.05})
    assert found["gates"]["matched_size"]["passed"] is found["ranked"] is passes


def test_a_size_that_nothing_is_matched_to_is_not_judged():
    assert "matched_size" not in judge(Honest, {"mismatch": None}, {"tolerance": 0.05})["gates"]


def test_nan_passes_no_gate():
    class Broken(Honest):
        def mix(self, x):
            return x * float("nan")

    assert failed(judge(Broken)) == {"repeatable", "batch_independent", "causal"}


def test_judging_leaves_the_model_in_the_mode_it_was_in():
    model = assemble(Recipe(mixer=Part(Honest), depth=1), "lm", Shape(length=16, vocab=16, outputs=16, width=8))
    for mode in (True, False):
        model.train(mode)
        gates(model, TASK, {}, None)
        assert model.training is mode


def test_a_decoder_that_reads_ahead_in_its_answer_is_caught():
    task = tasks.build("reverse", length=6, vocab=8)
    assert judge(Honest, task=task)["ranked"]
    found = judge(Peeking, task=task)
    assert [name for name, gate in found["gates"].items() if not gate["passed"]] == ["causal"]
