"""A suite small enough to be run many times, and the command line as a person types it."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from rich.console import Console

from harness import machine
from harness.commands import main

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
    with machine.threads(1):
        yield


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


@pytest.fixture(scope="session")
def call() -> Callable[..., Result]:
    """Runs a command and checks its exit status; an error must be a UserError's one line."""

    def run(*arguments: object, status: int = 0, text: str | bytes | None = None) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=text)
        assert result.exit_code == status, (result.exception, result.output)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run
