"""Ops are tested on few numbers, which compiled passes would leave to torch."""

import pytest

from zoo.ops import compiled


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Compiled passes serve any number of numbers."""
    monkeypatch.setattr(compiled, "FEW", 0)
