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

from zoo.ops.cpu import cache

PROGRAM = """
import torch
from zoo.ops import forms
from zoo.ops.elementwise import positive
forms.CPU["positive"] = forms.Form("elementwise:positive")
print(float(positive(torch.tensor([[-1.0]]))))
"""


@pytest.fixture
def copy(tmp_path):
    """A copy of the package whose sources can be changed."""
    zoo = Path(__file__).parents[4] / "zoo"
    shutil.copytree(zoo, tmp_path / "zoo", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(copy, **environment):
    """What φ(−1) is in a process of its own, and what it says beside."""
    kept = {name: x for name, x in os.environ.items() if name not in ("ZOOBENCH_CACHE", "XDG_CACHE_HOME")}
    kept |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=kept, cwd=copy)
    assert found.returncode == 0, found.stderr
    return float(found.stdout), found.stderr


def code(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.nbc")}


def test_a_change_in_another_file_is_compiled(copy):
    """`exp` stands in jit.py, and the loop that calls it in elementwise.py."""
    home = copy / "home"
    before, _ = run(copy, ZOOBENCH_CACHE=str(home))
    kept = code(home)
    assert before == pytest.approx(0.36788, abs=1e-4)
    assert kept
    clone = shutil.copytree(copy / "zoo", copy / "clone/zoo", copy_function=shutil.copyfile).parent
    for checkout in (copy, clone):
        assert run(checkout, ZOOBENCH_CACHE=str(home))[0] == before
        assert code(home) == kept, "unchanged sources are compiled once, wherever they are"
    helper = copy / "zoo/ops/cpu/jit.py"
    source = helper.read_text()
    assert "np.float32(2 / 6)" in source
    helper.write_text(source.replace("np.float32(2 / 6)", "np.float32(3 / 6)"))
    assert abs(run(copy, ZOOBENCH_CACHE=str(home))[0] - before) > 1e-3
    assert code(home).items() > kept.items(), "machine code of other sources stays for a while"


def test_without_a_home_it_is_kept_in_the_package_and_else_nowhere(copy):
    package = copy / "zoo/ops/cpu/__pycache__"
    value, errors = run(copy, HOME="/dev/null")
    assert value == pytest.approx(0.36788, abs=1e-4)
    assert not errors
    assert code(package)
    shutil.rmtree(package)
    package.write_text("a file, where a folder can be made by nobody, not even by root")
    value, errors = run(copy, ZOOBENCH_CACHE="/dev/null")
    assert value == pytest.approx(0.36788, abs=1e-4)
    assert errors.count("Warning") == 1
    assert "ZOOBENCH_CACHE" in errors


def test_old_folders_are_removed(tmp_path, monkeypatch):
    """All but the last few, and those that another process may be using."""
    monkeypatch.setenv("ZOOBENCH_CACHE", str(tmp_path))
    for age in range(6):
        old = tmp_path / "kernels" / f"used {age} hours ago"
        old.mkdir(parents=True)
        (old / "loop.nbc").write_text("machine code")
        os.utime(old, times=2 * (time.time() - 3600 * age - 60,))
    try:
        cache.folder.cache_clear()
        own = cache.folder()
    finally:
        cache.folder.cache_clear()
    kept = {path.name for path in (tmp_path / "kernels").iterdir()}
    assert kept == {own.name, *(f"used {age} hours ago" for age in range(cache.KEPT))}
    assert own.name == cache.key()
