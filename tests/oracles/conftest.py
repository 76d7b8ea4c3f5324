"""What every oracle test is given: recorded official layers, and a book of how closely each architecture was met.

`oracle("s4d", "state-spaces/s4, S4Block")` gives a `Proof`; each comparison through it asserts a limit and enters the
error in the book. `pytest tests/oracles --proofs` writes the book to zoo/proofs.json, for docs and `zoobench ls`.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from .compare import Proof, read

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
BOOK = pytest.StashKey[dict[str, dict[str, dict[str, float]]]]()


@pytest.fixture
def oracle(request: pytest.FixtureRequest) -> Callable[[str, str], Proof]:
    """`oracle(architecture, what it is compared with)`: a Proof."""
    book = request.config.stash[BOOK]
    return lambda architecture, source: Proof(book.setdefault(architecture, {}).setdefault(source, {}))


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers casts to float32, by `.float()` and, in norms, by `.to`: neither does so here."""
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(torch.Tensor, "to", lambda x, *a, **k: x if a == (torch.float32,) else to(x, *a, **k))


@pytest.fixture
def parity() -> Callable[[str], tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """`parity(name)`: all tensors of a recorded official layer; and its inputs and parameters, in one dict."""

    return lambda name: _recorded_in("parity", name)


@pytest.fixture
def frontier_parity() -> Callable[[str], tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """As `parity`, for architectures since 2024."""
    return lambda name: _recorded_in("parity_frontier", name)


def _recorded_in(folder: str, name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    path = SHARED / folder / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no recorded outputs at {path}")
    data, inputs, parameters = read(path)
    return data, inputs | parameters


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--proofs", action="store_true", help="write what the oracle tests measured to zoo/proofs.json")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[BOOK] = {}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object, error: object) -> None:
    """A worker of xdist hands over its part of the book."""
    output: dict[str, dict[str, dict[str, dict[str, float]]]] = getattr(node, "workeroutput", {})
    book = node.config.stash[BOOK]  # type: ignore[attr-defined]
    for architecture, sources in output.get("proofs", {}).items():
        for source, errors in sources.items():
            entry = book.setdefault(architecture, {}).setdefault(source, {})
            for kind, value in errors.items():
                entry[kind] = max(entry.get(kind, 0.0), value)


def pytest_sessionfinish(session: pytest.Session) -> None:
    book = session.config.stash[BOOK]
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["proofs"] = book
    elif session.config.getoption("--proofs"):
        shown = {
            architecture: {
                source: {k: float(f"{v:.1e}") for k, v in errors.items()} for source, errors in sorted(sources.items())
            }
            for architecture, sources in sorted(book.items())
        }
        (ROOT / "zoo" / "proofs.json").write_text(
            json.dumps(shown, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
