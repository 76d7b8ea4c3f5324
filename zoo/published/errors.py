"""The error that published weights raise."""

from __future__ import annotations


class PretrainedError(ValueError):
    """Weights are not available or do not fit. The message says what, where, and what to do."""


def missing(package: str, extra: str, why: str) -> PretrainedError:
    """The error for a package that is not installed."""
    return PretrainedError(f"{why} needs {package}: pip install 'zoobench[{extra}]'")
