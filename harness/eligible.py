"""Gates a trained model passes before its row is ranked, each with the number it measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tasks.base import Task
from zoo.contract import Batch, Model

Gate = dict[str, Any]


def gates(model: Model, task: Task, size: dict[str, Any], match: dict[str, Any] | None) -> dict[str, Gate]:
    """Every gate that applies to the role and budget, by name: passed, measured, limit, about."""
    batch = next(iter(task.evaluation("test", size=8, limit=8))).tensors(next(model.parameters()).device)
    training = model.training
    model.eval()
    with torch.no_grad():
        found = {"repeatable": _repeatable(model, batch), "batch_independent": _batch_independent(model, batch)}
        if model.role in ("lm", "seq2seq"):
            found["causal"] = _causal(model, batch)
    if match is not None and size.get("mismatch") is not None:
        found["matched_size"] = _gate(
            abs(size["mismatch"]), match["tolerance"], "relative distance from the size all are matched to"
        )
    model.train(training)
    return found


def verdict(found: dict[str, Gate]) -> dict[str, Any]:
    """The record's `eligibility`: ranked only if every gate was passed."""
    return {"ranked": all(gate["passed"] for gate in found.values()), "gates": found}


def _gate(measured: float, limit: float, about: str) -> Gate:
    return {"passed": bool(measured <= limit), "measured": measured, "limit": limit, "about": about}


def _repeatable(model: Model, batch: Batch) -> Gate:
    difference = (model(batch) - model(batch)).abs().max()
    return _gate(float(difference), 0.0, "largest difference between two evaluations of one batch, in logits")


def _batch_independent(model: Model, batch: Batch) -> Gate:
    """Each example alone against the same example among others."""
    together = model(batch)
    alone = torch.cat([model(_rows(batch, i)) for i in range(len(batch))])
    return _gate(
        _relative(alone, together), 1e-4, "largest relative difference between an example alone and in a batch"
    )


def _causal(model: Model, batch: Batch) -> Gate:
    """Everything after a cut is replaced by other tokens; logits up to the cut must stand.

    Of `seq2seq` it is the target, as the decoder reads it: the source may be seen whole.
    """
    read, vocab = ("inputs", model.shape.vocab) if model.role == "lm" else ("decoder_inputs", model.shape.outputs)
    tokens = getattr(batch, read)
    before, worst = model(batch), 0.0
    for cut in {1, tokens.shape[1] // 3, tokens.shape[1] - 1} - {0, tokens.shape[1]}:
        changed = tokens.clone()
        changed[:, cut:] = (changed[:, cut:] + 1 + changed[:, :1] % 7) % (vocab or 1)
        after = model(replace(batch, **{read: changed}))
        change = _relative(after[:, :cut], before[:, :cut])
        worst = worst if change <= worst else change  # NaN counts as worst
    return _gate(worst, 1e-4, "largest relative change of past logits when the future is replaced")


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-6))


def _rows(batch: Batch, index: int) -> Batch:
    return Batch(**{name: tensor[index : index + 1] for name, tensor in batch.arrays().items()})
