"""What every test shares."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

import tasks.registry
import zoo.registry


@pytest.fixture(autouse=True, scope="session")
def private_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache of corpora and tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOOBENCH_HOME", str(tmp_path_factory.mktemp("zoobench")))
        yield


@pytest.fixture(autouse=True)
def private_registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing a test registers, or a plug-in it imports, outlives it."""
    for registry in (zoo.registry._registry, tasks.registry._registry):
        registry.names()
        monkeypatch.setattr(registry, "entries", dict(registry.entries))
    yield
    for name in [name for name in sys.modules if name.startswith("zoobench_plugin_")]:
        del sys.modules[name]
