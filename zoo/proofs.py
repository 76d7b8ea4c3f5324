"""What the oracle tests measured: how closely each architecture met independent implementations of it.

`proofs.json` is written by `pytest tests/oracles --proofs`: architecture → what it was compared with → the largest
relative error seen, max |a − b| / max |b|, of outputs and of gradients.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Proof:
    """One comparison: the other implementation, and the largest relative errors (None: not compared)."""

    oracle: str
    output: float | None
    gradient: float | None


@cache
def _book() -> dict[str, dict[str, dict[str, float]]]:
    path = Path(__file__).with_name("proofs.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def of(architecture: str) -> tuple[Proof, ...]:
    """Every comparison an architecture has passed; none for a plug-in, or for one no other implementation exists of."""
    found = _book().get(architecture, {})
    return tuple(Proof(name, e.get("output"), e.get("gradient")) for name, e in found.items())
