"""Every registered architecture, trained for some steps, passes every gate that its own traits let it pass."""

import numpy as np
import pytest

import tasks
from tasks.base import Metric, Task
from zoo.types import Batch, Shape, Unsupported

from ..made import do
from .conftest import failed_gates, spec

IN_EVERY_ROLE = ("pre_ln", "reformer", "s4", "lstm")
"""Of the representative architectures; the others are judged as language models alone."""
TASKS = {"lm": "mqar", "seq2seq": "reverse", "classify": "majority"}
OPTIONS = {
    "mqar": {"length": 32, "pairs": 4, "vocab": 32},
    "reverse": {"length": 8, "vocab": 8},
    "majority": {},
}


class Majority(Task):
    """Whether more of 24 numbers are above zero; a vector of two features a step."""

    name, role = "majority", "classify"
    metric = Metric("accuracy", higher_is_better=True, chance=0.5)
    fingerprint = "majority/1"

    @property
    def shape(self):
        return Shape(length=24, outputs=2, features=2)

    def count(self, split):
        return {"train": None, "tune": 64, "valid": 128, "test": 256}[split]

    def examples(self, split, ids, seed):
        key = ["train", "tune", "valid", "test"].index(split)
        made = [np.random.Generator(np.random.PCG64([key, seed, int(i)])).standard_normal((24, 2)) for i in ids]
        inputs = np.stack(made).astype(np.float32)
        return Batch(inputs=inputs, targets=(np.sign(inputs[..., 0]).sum(1) > 0).astype(np.int64))

    def baselines(self, limit=None):
        return []


def judged(name, role, folder):
    """The record of a short run at the first width that can be."""
    if role == "classify":
        tasks.register("majority")(Majority)
    for width in (16, 32, 64):
        what = spec(name, task=TASKS[role], task_options=OPTIONS[TASKS[role]], options={"depth": 2, "width": width})
        try:
            return do(what, folder)
        except Unsupported:
            pytest.skip(f"cannot play {role}")
        except ValueError:
            continue
    raise AssertionError(f"{name} can be built at none of these widths")


@pytest.mark.slow
@pytest.mark.parametrize("role", TASKS)
def test_an_honest_architecture_passes(architecture, role, tmp_path, request):
    if not (role == "lm" or architecture in IN_EVERY_ROLE or request.config.getoption("--all")):
        pytest.skip("in this role with --all only")
    found = judged(architecture, role, tmp_path)
    if architecture == "reformer" and role != "classify":
        assert failed_gates(found) == {"causal"}
        return
    assert failed_gates(found) == set(), found.eligibility.gates
    assert found.eligibility.ranked
    assert len(found.eligibility.gates) == (13 if role == "classify" else 15)
