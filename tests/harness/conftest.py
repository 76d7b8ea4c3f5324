"""A suite small enough to be run many times."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

TINY: dict[str, Any] = {
    "suite": "tiny",
    "architectures": [{"pre_ln": {"heads": 1}}, "lstm"],
    "tasks": [{"mqar": {"length": 8, "pairs": 2, "vocab": 16}}],
    "model": {"depth": 1, "width": 8},
    "budget": {"match": "none", "stop": {"steps": 6}},
    "seeds": [0, 1],
    "train": {"batch_tokens": 32, "precision": "fp32"},
    "evaluate": {"valid": 8, "test": 8},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Torch computes on one thread, as in a worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def suite(tmp_path: Path) -> Callable[..., Path]:
    """Writes the tiny suite with some keys replaced."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
        return path

    return write


@pytest.fixture
def quiet() -> Console:
    """A console whose text can be read at `.file.getvalue()`."""
    return Console(file=io.StringIO(), width=200)
