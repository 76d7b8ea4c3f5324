"""A run on parts of its batches, on several devices, in shards or recomputed is the run that it is on one device."""

import pytest
import torch
from safetensors.torch import load_file

import harness
from harness.gates.registry import gates
from harness.records.meters import StopRule

from ..made import do, make_spec, make_trial

ALL = pytest.mark.with_all
UNJUDGED = {"valid": 8, "test": 8, "skip_gates": list(gates())}


def losses(record):
    return torch.tensor([point.loss for point in record.curve])


@pytest.mark.parametrize("task", ["mqar", "g2p", pytest.param("listops", marks=ALL)])
def test_parts_of_a_batch_train_as_the_whole_does_and_pass_all_gates(task, tmp_path):
    """Of `listops` inputs are padded, of `mqar` some targets count."""
    settings = {"batch_tokens": 32 if task == "mqar" else 4 * 2048}
    whole = do(make_spec(task=task, train=settings, stop=StopRule("steps", 6)), tmp_path / "whole")
    parts = do(make_spec(task=task, train={**settings, "accumulate": 3}, stop=StopRule("steps", 6)), tmp_path / "parts")
    assert parts.data == whole.data
    assert (losses(parts) - losses(whole)).abs().max() < 1e-5
    assert (parts.budget.used.tokens, parts.budget.used.flops) == (whole.budget.used.tokens, whole.budget.used.flops)
    assert parts.eligibility.ranked, parts.eligibility.gates
    assert parts.memory.peak_bytes < whole.memory.peak_bytes
    assert parts.spec.to_dict()["train"]["accumulate"] == 3
    assert "accumulate" not in whole.spec.to_dict()["train"], "or run ids would change"


def test_recomputed_blocks_give_equal_gradients_with_dropout_too_and_count_nothing_twice(tmp_path):
    spec = make_trial("rwkv7", options={"depth": 4, "width": 64, "dropout": 0.2}, stop=StopRule("steps", 4))
    plain, again = (do(spec, tmp_path / str(on), recompute=on) for on in (False, True))
    torch.testing.assert_close(losses(again), losses(plain), rtol=0, atol=1e-6)
    assert again.budget == plain.budget.replace(used=again.budget.used)
    assert again.budget.used.flops == plain.budget.used.flops
    assert again.memory.peak_bytes < plain.memory.peak_bytes
    assert (again.provenance.recompute, plain.provenance.recompute) == (True, False)
    assert again.provenance.kernels == plain.provenance.kernels


@pytest.fixture
def run(suite, quiet, tmp_path):
    """Makes the one run of a tiny suite; its record, and what its model weighs."""

    def run(name="pre_ln", evaluate=UNJUDGED, steps=6, model=None, train=None, **limits):
        root = tmp_path / f"{name} {steps} {model} {train} {limits}".replace("/", "")
        root.mkdir()
        keys = {"architectures": [name], "seeds": [0], "evaluate": evaluate, "limits": limits}
        keys |= {"budget": {"match": "none", "stop": {"steps": steps}}, "model": model or {"depth": 2, "width": 16}}
        keys["train"] = {"batch_tokens": 64, "precision": "fp32", "lr": 1e-3, **(train or {})}
        (record,) = harness.run(suite(**keys), root=root, workers=1, threads=1, console=quiet).records
        assert record.error is None
        return record, load_file(root / "tiny" / record.run_id / "model" / "model.safetensors")

    return run


@pytest.mark.slow
def test_a_run_on_two_devices_is_the_run_on_one(run):
    """Kept short: seconds are those of two fresh processes that compile nothing."""
    (one, _), (two, _) = run(), run(devices=2)
    assert (two.data, two.run_id, two.budget.used.tokens) == (one.data, one.run_id, one.budget.used.tokens)
    assert (losses(two) - losses(one)).abs().max() < 1e-5
    assert two.metrics.test["loss"] == pytest.approx(one.metrics.test["loss"], abs=1e-5)
    assert (one.provenance.devices, two.provenance.devices) == (1, 2)


@ALL
@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True])
def test_weights_gates_and_rest_of_a_run_on_two_devices_are_those_on_one(shard, run):
    """With batches in parts, blocks recomputed, and gates that judge what the first rank is left with."""
    train, judged = {"accumulate": 2}, {"valid": 8, "test": 8}
    (one, theirs), (two, ours) = (
        run("lstm", judged, train=train, **more) for more in ({}, {"devices": 2, "shard": shard, "recompute": True})
    )
    assert two.data == one.data
    assert (losses(two) - losses(one)).abs().max() < 1e-5
    assert two.eligibility.ranked, two.eligibility.gates
    for name, weight in theirs.items():
        assert (ours[name] - weight).norm() < 1e-6 * weight.norm(), name
    assert {gate: found.passed for gate, found in two.eligibility.gates.items()} == {
        gate: found.passed for gate, found in one.eligibility.gates.items()
    }


KILLS = """
import os, signal
from pathlib import Path
import torch
from torch import nn
from zoo import Mixer, Traits, register


@register("mortal")
class Mortal(Mixer):
    traits = Traits(causal="strict", bidirectional=False, resumable=False)

    def __init__(self, context):
        super().__init__(context)
        self.w = nn.Parameter(torch.ones(context.width))

    def forward(self, x, *, mask=None, state=None):
        here, mark = Path(__file__).parent, Path(__file__).parent / "killed"
        ranks = torch.distributed.is_initialized() and torch.distributed.get_rank()
        if ranks == {rank} and here.joinpath("fatal").exists() and list(here.rglob("state.pt")) and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.w * x.cumsum(1), None
"""


@ALL
@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_of_which_a_rank_is_killed_goes_on_and_ends_as_if_it_had_not(rank, shard, suite, quiet, tmp_path):
    (tmp_path / "mine.py").write_text(KILLS.replace("{rank}", str(rank)))
    keys = {"plugins": ["mine.py"], "architectures": ["mortal"], "seeds": [0], "evaluate": UNJUDGED}
    keys |= {"limits": {"devices": 2, "shard": shard, "checkpoint": 0.001}, "model": {"depth": 2, "width": 16}}
    keys |= {"budget": {"match": "none", "stop": {"steps": 20}}}
    path = suite(**keys, train={"batch_tokens": 64, "precision": "fp32", "lr": 1e-3})

    def run(name):
        given = {"workers": 1, "threads": 1, "console": quiet, "trust": True}
        (record,) = harness.run(path, root=tmp_path / name, **given).records
        return record

    left_alone = run("alone")
    (tmp_path / "fatal").touch()
    killed = run("cut")
    assert (tmp_path / "killed").exists()
    assert (killed.status, len(killed.segments), len(left_alone.segments)) == ("ok", 2, 1)
    assert killed.segments[1].from_step > 0
    assert (killed.data, killed.metrics) == (left_alone.data, left_alone.metrics)
    assert torch.equal(losses(killed), losses(left_alone))
