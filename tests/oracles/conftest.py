"""What every oracle test shares: recorded official layers, and a book of how closely each architecture was met.

`oracle("s4d", "state-spaces/s4, S4Block")` gives a `Proof`; each comparison through it asserts a limit and enters the
error in the book. `pytest tests/oracles --proofs` writes the book to zoo/proofs.json, for docs and `zoobench ls`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
BOOK = pytest.StashKey[dict[str, dict[str, dict[str, float]]]]()


def relative(got: Tensor, want: Tensor) -> float:
    """max |got − want| / max(max |want|, 1e-6); infinite where shapes differ or a number is missing."""
    if got.shape != want.shape:
        return float("inf")
    got, want = (torch.view_as_real(x) if x.is_complex() else x for x in (got.detach(), want.detach()))
    if got.numel() == 0:
        return 0.0
    error = float((got.double() - want.double()).abs().max() / want.double().abs().max().clamp(min=1e-6))
    return error if error == error else float("inf")


@dataclass
class Proof:
    """Comparisons of one architecture with one independent implementation."""

    entry: dict[str, float]

    def outputs(self, got: Tensor, want: Tensor, tolerance: float = 1e-5) -> None:
        """Equal within `tolerance`, relative to the largest entry."""
        self._enter("output", relative(got, want), tolerance, "output")

    def gradients(self, got: Mapping[str, Tensor], want: Mapping[str, Tensor], tolerance: float = 1e-4) -> None:
        """Every gradient in `want`, by name, equal within `tolerance`. `got` must have the same names."""
        assert got.keys() == want.keys(), f"names differ: {sorted(got.keys() ^ want.keys())}"
        assert want, "no gradient to compare"
        for name in want:
            self._enter("gradient", relative(got[name], want[name]), tolerance, f"gradient of {name}")

    def _enter(self, kind: str, error: float, tolerance: float, what: str) -> None:
        assert error <= tolerance, f"{what}: relative error {error:.2e} exceeds {tolerance:.0e}"
        self.entry[kind] = max(self.entry.get(kind, 0.0), error)


@pytest.fixture
def oracle(request: pytest.FixtureRequest) -> Callable[[str, str], Proof]:
    """`oracle(architecture, what it is compared with)`: a Proof."""
    book = request.config.stash[BOOK]
    return lambda architecture, source: Proof(book.setdefault(architecture, {}).setdefault(source, {}))


@pytest.fixture
def parity() -> Callable[[str], tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """`parity(name)`: all tensors of a recorded official layer, and those among them that need a gradient.

    The second holds `input(.*)` and `param.*` under their names without the prefix (`input` stays `input`).
    """

    def load(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        safetensors = pytest.importorskip("safetensors.torch")
        path = SHARED / "parity" / f"{name}.safetensors"
        if not path.is_file():
            pytest.skip(f"no recorded outputs at {path}")
        recorded = safetensors.load_file(path)
        leaves = {
            key.removeprefix("input.").removeprefix("param."): value.clone().requires_grad_()
            for key, value in recorded.items()
            if key.startswith(("input", "param."))
        }
        return recorded, leaves

    return load


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
