"""`make gpu`, where there is no GPU: it says so, and its steps and its page are tried with others."""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
ROW = {"op": "dplr", "form": "fla dplr", "dtype": "float32", "limit": 1e-4}


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks" / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "OUT", tmp_path)
    monkeypatch.setattr(module, "inputs", lambda name: {"GPU": "a card"})
    return module


@pytest.mark.skipif(torch.cuda.is_available() or not shutil.which("make"), reason="is for machines without a GPU")
def test_without_a_gpu_it_says_so_and_installs_nothing(gpu):
    made = subprocess.run(["make", "gpu"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode
    assert "make gpu needs an NVIDIA GPU, and nvidia-smi finds none" in made.stdout.splitlines()
    assert "python" not in made.stdout, "it would show what it runs"
    with pytest.raises(SystemExit, match=r"make gpu needs an NVIDIA GPU, and torch .* sees none"):
        gpu.main()


def test_a_step_is_done_once_and_a_page_says_how_all_ended(gpu, tmp_path, monkeypatch):
    (tmp_path / "calls").mkdir()
    commands = {"good": "true", "bad": "echo some reason >&2; false", "slow": "sleep 9"}
    for _ in range(2):
        for name, command in commands.items():
            gpu.run(name, 0.005, f"echo >> {tmp_path}/calls/{name}; {command}")
    assert [(tmp_path / "calls" / name).read_text() for name in commands] == ["\n", "\n\n", "\n\n"]
    rows = [ROW | {"errors": {"output": e, "state": 1e-7, "gradients": 1e-6}} for e in (1e-6, 1e-3, float("inf"))]
    lines = [json.dumps(row) for row in (*rows, ROW | {"reason": "its process ended by SIGSEGV"})]
    gpu.run("kernels", 1, f"cat {tmp_path}/calls/kernels.json")
    (tmp_path / "kernels" / "out").write_text("\n".join(["noise", *lines]))
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "out").write_text("...F\nFAILED a::bad - why\n1 failed, 3 passed in 2.00s\n")
    text = gpu.page(tmp_path)
    assert "| GPU | a card |" in text
    assert [line.rpartition("| ")[0] for line in text.splitlines() if "0.0 |" in line] == [
        *("| good | well ", "| bad | with exit code 1: some reason ", "| slow | for want of time "),
        f"| kernels | with exit code 1: cat: {tmp_path}/calls/kernels.json: No such file or directory ",
    ]
    assert text.count("| equal |") == 1
    assert text.count("| **not equal** |") == 2
    assert text.count("| its process ended by SIGSEGV |") == 1
    assert "- FAILED a::bad - why\n- 1 failed, 3 passed in 2.00s\n" in text
    monkeypatch.setattr(gpu, "inputs", lambda name: {"GPU": "another card"})
    assert gpu.last("good") is None
    assert not (tmp_path / "good").exists()
