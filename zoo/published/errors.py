"""The error that published weights raise, and what raises it everywhere."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.types import BadInput


class PretrainedError(BadInput):
    """Weights are not available or do not fit."""


def missing(package: str, extra: str, why: str) -> PretrainedError:
    """The error for a package that is not installed."""
    return PretrainedError(f"{why} needs {package}: pip install 'zoobench[{extra}]'")


def need(module: str, extra: str, why: str) -> Any:
    """A module of a package that may not be installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise missing(module.replace("_", "-"), extra, why) from None


def one_line(error: Exception) -> str:
    """What an error says, on one line that is not too long."""
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextmanager
def building(where: str | Path) -> Iterator[None]:
    """A context in which a model is made: torch's random state is kept, and what cannot be is refused for `where`."""
    import torch

    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except (TypeError, ValueError, RuntimeError) as error:  # torch's is a RuntimeError, such as of too little memory
        raise PretrainedError(f"{where}: {one_line(error)}") from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A context in which files are written at `path`."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch's is a RuntimeError
        raise PretrainedError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from None
