"""The kernels of flash-linear-attention themselves, interpreted on a CPU, through our adapters: beside the naive forms.

Two rows, two heads (of v; one of q and k, where ops allow it), K unlike V, chunks of 64, a state, decays of −∞.
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCALAR = "chunk_linear_attn", "chunk_simple_gla", "chunk_delta_rule", "chunk_gated_delta_rule"
PER_CHANNEL = "chunk_gla", "chunk_rwkv6", "chunk_dplr_delta_rule"
LIMITS = {"torch.float32": 1e-5, "torch.bfloat16": 1e-2}


@pytest.mark.skipif(not (find_spec("fla") and find_spec("triton")), reason="needs fla-core and triton")
@pytest.mark.parametrize(
    ("steps", "names"), [(100, SCALAR), pytest.param(130, SCALAR + PER_CHANNEL, marks=pytest.mark.with_all)]
)
def test_kernels_equal_the_naive_form(steps, names):
    forms = [f"fla {name}" for name in names]
    command = [sys.executable, Path(__file__).with_name("interpreted.py"), str(steps), *forms]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr[-2000:]
    found = json.loads(child.stdout.splitlines()[-1])
    assert {name.rpartition(" ")[0] for name in found} == {*forms}
    for name, errors in found.items():
        assert max(errors.values()) < LIMITS[name.split()[2]], (name, errors)
