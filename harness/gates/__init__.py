"""Gates that a trained model passes before its row is ranked, each with the number it measured.

Light to import: names and verdicts need no torch; `harness.gates.judge` does the judging.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.records.record import Eligibility, Gate

GATES: dict[str, str] = {
    "causal": "the future changes past outputs",
    "gradient_leak": "past outputs have a gradient from the future",
    "normalised": "what is scored is no probability distribution",
    "answers_unseen": "outputs depend on the targets",
    "batch_size": "an example's outputs depend on how many are scored with it",
    "batch_neighbours": "an example's outputs depend on which others are scored with it",
    "repeatable": "scoring again gives other scores",
    "weights_alone": "the saved weights do not give the scores",
    "evaluation_frozen": "scoring changes the model",
    "untrained": "the model knows answers before it is trained",
    "held_out_gap": "the test split is known better than other held-out data",
    "test_overlap": "test examples were trained on",
    "declared_size": "more is trained than is counted",
    "within_budget": "more training than the budget allows",
    "data_order": "other training data, or in another order",
    "matched_size": "another size than all are matched to",
}
"""Every gate by name, and what it stops."""
CAUSAL = ("lm", "seq2seq")
"""Roles with an order in time."""


def applied(role: str | None, *, matched: bool) -> list[str]:
    """Names of the gates for a role, of a run that is matched in size or not."""
    causal = () if role in CAUSAL else ("causal", "gradient_leak")
    return [name for name in GATES if name not in causal and (matched or name != "matched_size")]


def verdict(found: dict[str, Gate], skipped: Iterable[str] = ()) -> Eligibility:
    """The record's `eligibility`: ranked only if every gate was passed. `skipped` are the gates that were left out."""
    return Eligibility(all(gate.passed for gate in found.values()), found, tuple(sorted({*skipped})))
