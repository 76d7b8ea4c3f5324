"""Machine code is kept for the sources it was made of, wherever a folder can be written."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zoo.ops import forms

if not forms.available():
    pytest.skip("needs numba", allow_module_level=True)

import numba

from zoo.ops.cpu import cache

PROGRAM = """
import torch
from zoo.ops import forms
from zoo.ops.elementwise import positive
forms.CPU["positive"] = forms.Form("elementwise:positive")
print(float(positive(torch.tensor([[-1.0]]))))
"""


INVERSE = """
import numpy as np
from zoo.ops.cpu.delta_rule import _invert
from zoo.ops.cpu.jit import loop


@loop
def work(x, y, row, C):
    _invert(x, y, row, C)
    _invert(y, x, row, C)


C = 24
x = np.random.default_rng(0).standard_normal(C * C).astype(np.float32) / 4
y = np.zeros_like(x)
work(x, y, np.zeros(C, np.float32), C)
print(float(x.sum()))
"""
"""A loop that calls what LLVM does not inline."""


def run(checkout, home, program=("-c", PROGRAM)):
    """What a program prints (φ(−1), say) in a process of its own that keeps machine code in `home`."""
    environment = os.environ | {
        "PYTHONPATH": str(checkout),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ZOOBENCH_CACHE": str(home),
    }
    found = subprocess.run([sys.executable, *program], capture_output=True, text=True, env=environment, cwd=home)
    assert found.returncode == 0, found.stderr
    return float(found.stdout)


def code(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.nbc")}


def test_a_change_in_another_file_is_compiled(tmp_path):
    """`exp` stands in jit.py, and the loop that calls it in elementwise.py."""
    home = tmp_path / "home"
    home.mkdir()
    here = Path(__file__).parents[4]
    clone = shutil.copytree(here / "zoo", tmp_path / "clone/zoo", ignore=shutil.ignore_patterns("__pycache__")).parent
    before = run(here, home)
    kept = code(home)
    assert before == pytest.approx(0.36788, abs=1e-4)
    assert kept
    assert run(clone, home) == before
    assert code(home) == kept, "unchanged sources are compiled once, wherever they are"
    helper = clone / "zoo/ops/cpu/jit.py"
    source = helper.read_text()
    assert "np.float32(2 / 6)" in source
    helper.write_text(source.replace("np.float32(2 / 6)", "np.float32(3 / 6)"))
    assert abs(run(clone, home) - before) > 1e-3
    assert code(home).items() > kept.items(), "machine code of other sources stays for a while"


def test_a_process_that_compiles_a_loop_rounds_as_one_that_loads_it(tmp_path):
    """The linker took functions that a loop calls from elsewhere where it was compiled: 27.796492 for 27.79649."""
    program = tmp_path / "inverse.py"
    program.write_text(INVERSE)
    here = Path(__file__).parents[4]
    compiled, loaded = (run(here, tmp_path, [program]) for _ in range(2))
    assert compiled == loaded


@pytest.fixture
def fresh():
    """The folder is looked for again, before the test and after it."""
    cache.folder.cache_clear()
    yield
    cache.folder.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_without_a_home_it_is_kept_in_the_package_and_else_nowhere(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "OPS", tmp_path)
    monkeypatch.delenv("ZOOBENCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/dev/null")
    package = tmp_path / "cpu/__pycache__"
    assert cache.folder() == package / "kernels" / cache.key()
    assert cache.keep(numba.njit(code))._cache.cache_path == str(cache.folder())
    shutil.rmtree(package)
    package.write_text("a file, where a folder can be made by nobody, not even by root")
    cache.folder.cache_clear()
    with pytest.warns(UserWarning, match="ZOOBENCH_CACHE"):
        assert cache.keep(numba.njit(code))._cache.cache_path is None


@pytest.mark.usefixtures("fresh")
def test_old_folders_are_removed(tmp_path, monkeypatch):
    """All but the last few, and those that another process may be using."""
    monkeypatch.setenv("ZOOBENCH_CACHE", str(tmp_path))
    for age in range(6):
        old = tmp_path / "kernels" / f"used {age} hours ago"
        old.mkdir(parents=True)
        (old / "loop.nbc").write_text("machine code")
        os.utime(old, times=2 * (time.time() - 3600 * age - 60,))
    own = cache.folder()
    kept = {path.name for path in (tmp_path / "kernels").iterdir()}
    assert kept == {own.name, *(f"used {age} hours ago" for age in range(cache.KEPT))}
    assert own.name == cache.key()
