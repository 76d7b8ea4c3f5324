"""Peak memory is that of a training step's tensors: with machine code still to be compiled, or already there."""

import os
import subprocess
import sys

import pytest
import torch

from harness.gates.registry import gates
from harness.machine import PeakMemory
from harness.records.store import Store

TASK = {"mqar": {"length": 64, "pairs": 8, "vocab": 64}}


def test_the_most_bytes_alive_at_once():
    """A weight, its gradient and a moment of 4 kB each; forward keeps x (2 kB) and h (1 kB), and frees what is on the
    way to them; views and what is written in place take nothing."""
    weight = torch.nn.Parameter(torch.randn(32, 32))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad(set_to_none=False)
        with PeakMemory(torch.device("cpu"), optimizer) as memory:
            x = torch.ones(16, 32)
            torch.ones(16, 32).mul_(2).view(-1)
            h = (x @ weight[:, :16]).sum()
            h.backward()
            optimizer.step()
    weights, backward = 3 * 4096, 2048 + 1024 + 4  # x; the product, which waits for its sum's gradient; the sum
    assert weights + backward <= memory.peak <= weights + backward + 3 * 4096


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("pre_ln", marks=pytest.mark.with_all), "rwkv4"])
def test_the_first_run_ever_takes_as_much_memory_as_the_next(name, suite, tmp_path):
    """The first seed compiles every loop it needs, into an empty cache; the other finds them there."""
    path = suite(
        architectures=[name],
        tasks=[TASK],
        model={"depth": 2, "width": 128},
        seeds=[0, 1],
        budget={"match": "none", "stop": {"steps": 4}},
        train={"batch_tokens": 4096},
        evaluate={"valid": 8, "test": 8, "skip_gates": list(gates())},
    )
    code = (
        f"from pathlib import Path; import harness; harness.run({str(path)!r}, root=Path({str(tmp_path)!r}), workers=1)"
    )
    environment = {**os.environ, "ZOOBENCH_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.DEVNULL)
    peaks = {record.memory.peak_bytes for record in Store("tiny", tmp_path).records()}
    assert list((tmp_path / "cache").rglob("*.nbi")) or name == "pre_ln", "nothing was compiled"
    assert len(peaks) == 1, peaks
