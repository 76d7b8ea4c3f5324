"""Where numba compiles for another CPU than this one, or not at all, the tests of ops pass, and no process dies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.ops import forms

OPS = Path(__file__).parents[1]
TESTS = [OPS / name for name in ("test_norms.py", "test_attention.py", "test_linear_attention.py")]
PLACES = {
    "no compiler": {"NUMBA_DISABLE_JIT": "1"},
    "no numba": {},
    **{name: {"NUMBA_CPU_NAME": name} for name in ("generic", "haswell", "skylake-avx512", "znver4")},
    "another's features": {"NUMBA_CPU_FEATURES": "+sse2,+avx2,+fma"},
    "no AVX": {"NUMBA_ENABLE_AVX": "0"},
}
SLOW = [pytest.param(place, marks=pytest.mark.with_all) for place in PLACES if place != "no compiler"]


@pytest.mark.skipif(not forms.available(), reason="needs numba")
@pytest.mark.parametrize("place", ["no compiler", *SLOW])
def test_ops_elsewhere(place, tmp_path):
    if place == "no numba":
        (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['numba'] = None\n")
    paths = os.pathsep.join([str(tmp_path), str(OPS.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **PLACES[place], "ZOOBENCH_CACHE": str(tmp_path), "PYTHONPATH": paths}
    tests = TESTS[:1] if place == "no compiler" else TESTS
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-W", "default", *map(str, tests)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=OPS.parents[2])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ("numba is told to compile nothing" in ended.stdout) == (place == "no compiler"), ended.stdout
