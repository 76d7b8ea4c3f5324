"""What every test shares."""

import gc
import os
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec

import pytest

import tasks
import tasks.registry
import zoo.architectures

REPRESENTATIVE = (
    "gated_delta_net", "griffin", "hyena", "longformer", "lstm", "mamba2", "mlp_mixer", "pre_ln", "reformer", "rwkv7",
    "s4", "transformer_2017",
)  # fmt: skip
"""At least one architecture of every family and of every kind of mixer."""
TASKS = ("g2p", "induction", "listops", "masked_text", "mqar", "parity", "pixels", "retrieval", "reverse", "text")
"""At least one task of every family and role."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="on every architecture and task, not on a dozen")


def pytest_configure(config: pytest.Config) -> None:
    """Where there is no compiler, torch's forms are tested, and the warning that says so is no error."""
    if os.environ.get("NUMBA_DISABLE_JIT") or find_spec("numba") is None:
        config.addinivalue_line("filterwarnings", "default:compiled loops cannot be used")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`architecture` is each of `REPRESENTATIVE`, `task_name` each of `TASKS`; with --all, each there is."""
    every = metafunc.config.getoption("--all")
    if "architecture" in metafunc.fixturenames:
        metafunc.parametrize("architecture", zoo.architectures.names() if every else REPRESENTATIVE)
    if "task_name" in metafunc.fixturenames:
        metafunc.parametrize("task_name", tasks.names() if every else TASKS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of ops come first, so that all others find machine code: in front those that compile longest. What goes
    through every op waits for the tests of each, as two workers would compile the same kernels at the same time."""
    places = {"cpu/test_recurrences": 0, "zoo/ops/test_gradcheck": 1, "zoo/ops/test_every_op": 4, "zoo/ops": 2}
    items.sort(key=lambda item: next((place for path, place in places.items() if path in item.nodeid), 3))
    for item in items:
        if item.get_closest_marker("with_all") and not config.getoption("--all"):
            item.add_marker(pytest.mark.skip(reason="with --all only"))
        if item.get_closest_marker("cuda") and not has_cuda():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@cache
def has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(autouse=True, scope="module")
def frozen_heap() -> None:
    """What is imported by now is left out of garbage collection, of which every run makes a full one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def private_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache of corpora and tokens, or what the user trusts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOOBENCH_HOME", str(tmp_path_factory.mktemp("zoobench")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(autouse=True)
def private_registries() -> Iterator[None]:
    """Nothing a test registers, or a plug-in it imports, outlives it."""
    registries = (zoo.architectures._registry, tasks.registry._registry)
    before = [{*registry.names()} for registry in registries]
    yield
    for registry, names in zip(registries, before, strict=True):
        for name in registry.entries.keys() - names:
            del registry.entries[name]
    for name in [name for name in sys.modules if name.startswith("zoobench_plugin_")]:
        del sys.modules[name]
