"""Peak memory is that of training: with machine code still to be compiled, or already there."""

import os
import subprocess
import sys

import pytest

from harness.gates.registry import gates
from harness.records.store import Store

TASK = {"mqar": {"length": 64, "pairs": 8, "vocab": 64}}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is reset on Linux alone")
@pytest.mark.parametrize("name", [pytest.param("pre_ln", marks=pytest.mark.with_all), "rwkv4"])
def test_the_first_run_ever_takes_as_much_memory_as_the_next(name, suite, tmp_path):
    """The first seed compiles every loop it needs, into an empty cache; the others find them there.

    Resident memory of equal runs differs by some percent, as freed blocks are cut up in another order; compilation
    in it doubled the peak.
    """
    path = suite(
        architectures=[name],
        tasks=[TASK],
        model={"depth": 2, "width": 128},
        seeds=[0, 1, 2],
        budget={"match": "none", "stop": {"steps": 4}},
        train={"batch_tokens": 4096},
        evaluate={"valid": 8, "test": 8, "skip_gates": list(gates())},
    )
    code = (
        f"from pathlib import Path; import harness; harness.run({str(path)!r}, root=Path({str(tmp_path)!r}), workers=1)"
    )
    environment = {**os.environ, "ZOOBENCH_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.DEVNULL)
    records = Store("tiny", tmp_path).records()
    peaks = {record.spec.seed: record.memory.peak_bytes for record in records}
    assert list((tmp_path / "cache").rglob("*.nbi")) or name == "pre_ln", "nothing was compiled"
    assert max(peaks.values()) <= 1.2 * min(peaks.values()), peaks
