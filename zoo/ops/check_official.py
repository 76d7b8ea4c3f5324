"""Compares official kernels with the naive forms, each in a process of its own: what crashes there ends no run.

    python -m zoo.ops.check_official

compares all of them on this machine's GPU, and prints a line of JSON for each. What was found is kept in the user's
cache for as long as our sources, torch, the kernel's package and the GPU are the same.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import torch

from zoo import cache
from zoo.ops import forms, official

SECONDS = 900.0
"""How long a comparison may take: at first, Triton compiles and tunes for minutes."""
PASSING = ("out of memory", "unavailable", "ImportError", "ModuleNotFound", "exit code", "SIGKILL", "SIGTERM", "SIGINT")
"""Words of reasons that another time may not have, and that are not kept: as that a GPU is full, or another's."""
ROOT = Path(__file__).parents[2]


def compare(
    kernel: official.Official, sizes: tuple[int, ...], dtypes: tuple[torch.dtype | None, ...], device: torch.device
) -> dict[str, Any]:
    """`errors` of a kernel by part (see `official.errors`), or the `reason` why there are none.

    What was found before on this machine, or what a new process finds, under the precision and autocast of this one.
    """
    kind = device.type
    case = {
        "op": kernel.op,
        "form": kernel.form,
        "sizes": sizes,
        "dtypes": [_name(dtype) for dtype in dtypes],
        "precision": torch.get_float32_matmul_precision(),
        "autocast": _name(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else None,
    }
    gpu = torch.cuda.get_device_name(device) if kind == "cuda" else kind
    versions = [f"{name} {version(name)}" for name in packages_distributions().get(kernel.package, [])]
    key = blake2b(json.dumps([case, gpu, *sorted({*versions})]).encode(), digest_size=10).hexdigest()
    with cache.kept(f"official/{key}.json") as known:
        if known.keys() & {"errors", "reason"}:
            return known
        found = _in_own_process(case | {"device": str(device)})
        if not any(word in found.get("reason", "") for word in PASSING):
            known.update(found)
        return found


def _name(dtype: torch.dtype | None) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")


def _in_own_process(case: dict[str, Any]) -> dict[str, Any]:
    """What a new Python finds, which has loaded no CUDA yet. Meanwhile it is said that this one lives, and waits."""
    command = [sys.executable, "-m", "zoo.ops.check_official", json.dumps(case)]
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    end = time.monotonic() + SECONDS
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, **pipes) as child:
        try:
            while child.returncode is None:
                if time.monotonic() > end:
                    return {"reason": f"it took more than {SECONDS:.0f} s"}
                with suppress(subprocess.TimeoutExpired):
                    output, said = child.communicate(timeout=5)
                for call in forms.on_compile:
                    call()
        finally:
            child.kill()
    with suppress(IndexError, ValueError):
        return dict(json.loads(output.splitlines()[-1]))
    code = child.returncode
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return {"reason": f"its process ended {how}: {said.decode(errors='replace').strip()[-200:]}".rstrip(": ")}


def _answer(case: dict[str, Any]) -> dict[str, Any]:
    """In the process of its own."""
    device = torch.device(case["device"])
    kernel = next(kernel for kernel in official.kernels() if (kernel.op, kernel.form) == (case["op"], case["form"]))
    dtypes = tuple(None if name is None else getattr(torch, name) for name in case["dtypes"])
    torch.set_float32_matmul_precision(case["precision"])
    lowered = getattr(torch, case["autocast"] or "bfloat16")
    try:
        with torch.autocast(device.type, dtype=lowered, enabled=case["autocast"] is not None):
            return {"errors": official.errors(kernel, tuple(case["sizes"]), dtypes, device)}
    except Exception as error:  # whatever a kernel of another package may raise
        return {"reason": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}


def rows() -> Iterator[dict[str, Any]]:
    """Each official kernel in each of its dtypes, given all arguments it takes, beside the naive form."""
    for kernel in official.kernels():
        count = len(kernel.draw(torch.Generator(), 2, *kernel.sizes))
        for dtype in kernel.dtypes:
            row = {"op": kernel.op, "form": kernel.form, "dtype": _name(dtype), "limit": official.tolerance(dtype)}
            if torch.cuda.is_available() and official.installed(kernel.package):
                dtypes = tuple(None if place in kernel.unused else dtype for place in range(count))
                yield row | compare(kernel, kernel.sizes, dtypes, torch.device("cuda"))
            else:
                yield row | {"reason": official.status(kernel)}


def main(arguments: list[str]) -> None:
    """Answer for a case in JSON, or print all rows."""
    if arguments:
        print(f"\n{json.dumps(_answer(json.loads(arguments[0])))}", flush=True)
        os._exit(0)  # nothing of the package's has a last word
    for row in rows():
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
