"""A first day on a GPU, into docs/gpu.md: tests, official kernels, a board, and the speed of every architecture.

    python benchmarks/gpu.py     # as `make gpu` does, once it has installed what this needs

What a step leaves in its folder of build/gpu stands until sources, packages or the GPU are others. One that failed, or
for which there was no time, is taken up again by the next call: each has its minutes, all together less than an hour.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from harness.bench import report
from harness.bench.peers import PEERS
from harness.board.tables import as_markdown
from harness.records.provenance import commit
from harness.version import installed
from zoo import architectures

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "gpu"
PACKAGES = ("torch", "triton", "fla-core", "flash-linear-attention", "mamba-ssm", "causal-conv1d")
PYTHON = shlex.quote(sys.executable)
ZOOBENCH = f"{PYTHON} -m harness"
RESULTS = "--results build/gpu/quick/results"
STEPS = {
    "mamba-ssm": (
        8,
        f"MAMBA_KEEP_CUDA_BUILD=TRUE {PYTHON} -m pip install --no-build-isolation 'mamba-ssm[causal-conv1d]'",
    ),
    "doctor": (1, f"{ZOOBENCH} doctor --json"),
    "kernels": (12, f"{PYTHON} -m zoo.ops.check_official"),
    "tests": (7, f"{PYTHON} -m pytest -m cuda --all"),
    "quick": (
        9,
        f"{ZOOBENCH} run quick {RESULTS} --device cuda --ignore-published --workers {min(8, os.cpu_count() or 1)}; "
        f"code=$?; {ZOOBENCH} board quick {RESULTS} --out build/gpu/quick/board.md 2> /dev/null; exit $code",
    ),
}
"""Minutes and command of each step, but for those of the speed of architectures: of these so many for all, and one."""
BENCH, MOST = 18, 3
TOLD = re.compile(r"FAILED|ERROR|\d+ (passed|failed|skipped|error).* in ")
"""Lines of pytest that go on the page."""


def inputs(name: str) -> dict[str, str]:
    """What the result of a step depends on: GPU, packages, and a hash of the sources."""
    folders = ["zoo", "harness", "tasks", *(["tests"] if name == "tests" else [])]
    digest = blake2b(digest_size=8)
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.[py]*") if path.is_file()):
        if path.suffix in (".py", ".yaml"):
            digest.update(path.read_bytes())
    versions = {package: installed(package) or "not installed" for package in PACKAGES}
    gpu = {"GPU": torch.cuda.get_device_name(), "CUDA": str(torch.version.cuda)}
    return {**gpu, **versions, "sources": digest.hexdigest()}


def last(name: str) -> dict[str, Any] | None:
    """How a step ended that had the inputs of now; what another one left is removed."""
    stamp = OUT / name / "step.json"
    if stamp.exists() and (found := json.loads(stamp.read_text()))["inputs"] == inputs(name):
        return found
    shutil.rmtree(OUT / name, ignore_errors=True)
    return None


def run(name: str, minutes: float, command: str) -> None:
    """Do a step, unless it is done."""
    before = last(name)
    if before and before["code"] == 0:
        return
    print(f"{name}: {minutes:.0f} minutes at most", flush=True)
    (OUT / name).mkdir(parents=True, exist_ok=True)
    bounded = ["timeout", "-k", "30", f"{max(1, 60 * minutes):.0f}", "sh", "-c", command]
    began = time.monotonic()
    with (OUT / name / "out").open("w") as out, (OUT / name / "err").open("w") as err:
        code = subprocess.run(bounded, cwd=ROOT, stdout=out, stderr=err, check=False).returncode
    ended = {"inputs": inputs(name), "code": code, "seconds": time.monotonic() - began}
    (OUT / name / "step.json").write_text(json.dumps(ended))


def bench() -> None:
    """A step for each architecture, as long as there is time."""
    end = time.monotonic() + 60 * BENCH
    known = {name for peer in PEERS.values() for name in peer.implements}
    for name in architectures.names():
        options = "--reference none --repeats 1 --seconds 0.5 --lengths 512x16,4096x2"
        options += " --peers" if name in known else ""
        if (left := (end - time.monotonic()) / 60) > 0:
            run(f"bench-{name}", min(MOST, left), f"{ZOOBENCH} bench {name} {options} --out build/gpu/bench-{name}")


def page(out: Path) -> str:
    """What stands in docs/gpu.md: whatever steps left in a folder."""
    files = sorted(out.glob("*/step.json"), key=os.path.getmtime)
    stamps = {path.parent.name: json.loads(path.read_text()) for path in files}
    known = {"commit": commit(), **list(stamps.values())[-1]["inputs"]}
    if "doctor" in stamps and not stamps["doctor"]["code"]:
        found = json.loads(read(out / "doctor" / "out"))
        known |= {f"TFLOP/s, {kind}": f"{found[f'matmul_flops_{kind}'] / 1e12:.1f}" for kind in ("fp32", "bf16")}
    reached = sum(name.startswith("bench-") for name in stamps)
    steps = [[name, ended(out / name, at["code"]), f"{at['seconds'] / 60:.1f}"] for name, at in stamps.items()]
    rows = [json.loads(line) for line in read(out / "kernels" / "out").splitlines() if re.match("{.*}$", line)]
    speeds = [row for path in sorted(out.glob("*/bench.json")) for row in json.loads(path.read_text())]
    parts = [
        "# On a GPU\n\nWritten by `make gpu` (benchmarks/gpu.py), of one machine.",
        table(["", ""], list(known.items())),
        "## Steps",
        table(["step", "ended", "minutes"], steps),
        f"{reached} of {len(architectures.names())} architectures were timed.",
        "## Official kernels beside the naive form",
        "Relative errors of output, final state and the worst gradient, beside float64.",
        table(["op", "kernel", "dtype", "output", "state", "gradients", ""], list(map(kernel, rows))),
        "## Tests that need a GPU",
        "\n".join([f"- {line}" for line in read(out / "tests" / "out").splitlines() if TOLD.match(line)]),
        *map(as_markdown, report.sections(speeds)),
        re.sub("^#", "##", read(out / "quick" / "board.md"), flags=re.M),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def read(file: Path) -> str:
    return file.read_text(errors="replace").strip() if file.exists() else ""


def table(titles: list[str], rows: list[Any]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)


def ended(folder: Path, code: int) -> str:
    """How a step ended, in words."""
    if code in (0, 124, 137):
        return "well" if code == 0 else "for want of time"
    said = (read(folder / "err") or read(folder / "out") or "nothing").splitlines()
    return f"with exit code {code}: {said[-1][:200]}"


def kernel(row: dict[str, Any]) -> list[str]:
    """A row of the table of kernels."""
    errors = row.get("errors", {})
    verdict = row.get("reason") or ("equal" if max(errors.values()) <= row["limit"] else "**not equal**")
    cells = [f"{errors[part]:.1e}" if part in errors else "" for part in ("output", "state", "gradients")]
    return [row["op"], row["form"], row["dtype"], *cells, verdict]


def main() -> None:
    """Do the steps, and write the page."""
    if not torch.cuda.is_available():
        how = "" if torch.version.cuda else "; it is built without CUDA"
        sys.exit(f"make gpu needs an NVIDIA GPU, and torch {torch.__version__} sees none{how}")
    for name, (minutes, command) in STEPS.items():
        run(name, minutes, command)
    for name in os.listdir(OUT):
        last(name)  # what another GPU, or what other sources left, is not shown
    bench()
    (ROOT / "docs" / "gpu.md").write_text(page(OUT), encoding="utf-8")
    failed = [name for name in os.listdir(OUT) if (at := last(name)) is None or at["code"]]
    sys.exit(f"docs/gpu.md is written; {', '.join(failed)} did not end well" if failed else 0)


if __name__ == "__main__":
    main()
