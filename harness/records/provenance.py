"""Where and with what a run was made."""

import contextlib
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.records.record import Provenance
from harness.version import __version__, installed

if TYPE_CHECKING:
    import torch


@cache
def commit() -> str | None:
    """The git commit of this code, with `+` where the working tree differs; None outside a checkout."""
    here = Path(__file__).parent.parent.parent
    if not (here / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        paths = ["zoo", "tasks", "harness", "pyproject.toml"]
        changed = subprocess.run(["git", "status", "--porcelain", *paths], cwd=here, capture_output=True, text=True)
        return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
    return None


DATA_PACKAGES = ("gensim", "mlxtend", "tokenizers", "timm", "pillow", "sacrebleu")
"""Packages that make examples or scores from data; what ships in the others is known by its hash."""


@cache
def packages() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on, as far as they are installed."""
    versions = {name: installed(name) for name in ("torch", "numpy", "scipy", "numba", "optuna", *DATA_PACKAGES)}
    return {"python": platform.python_version()} | {name: known for name, known in versions.items() if known}


def provenance(device: "torch.device", precision: str, kernels: dict[str, str]) -> Provenance:
    """Where and with what a run was made."""
    import torch

    from harness import machine

    return Provenance(
        zoobench=__version__,
        commit=commit(),
        packages=dict(packages()),
        hardware=machine.hardware(device.type),
        device=device.type,
        system=f"{platform.system()} {platform.machine()}",
        threads=torch.get_num_threads(),
        precision=precision,
        kernels=kernels,
    )
