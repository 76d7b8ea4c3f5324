"""The scores of a model on a split, as records hold them."""

from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor

from harness.gates.question import asked
from harness.isolation.beat import beat
from tasks.base import Split, Task, Totals, add_totals
from zoo.contract import Batch, Model
from zoo.decoding import decode

See = Callable[[bool, Batch, Tensor], None]
"""Is told whether the model changed what it was given, and shown the batch and the logits."""


def evaluate(
    model: Model, task: Task, split: Split, *, size: int, limit: int | None, see: See = lambda *_: None
) -> dict[str, float]:
    """Every metric of the task on a split, in fp32 and eval mode; `see` is shown each batch with its logits.

    What the model was given has no targets, and is not what it is scored by: that is made anew.
    """
    where = next(model.parameters()).device
    training = model.training
    model.eval()
    totals: Totals = {}
    with torch.no_grad():
        anew = iter(task.evaluation(split, size=size, limit=limit))
        for given in task.evaluation(split, size=size, limit=limit):
            given = asked(given.tensors(where))
            before = {name: value.clone() for name, value in given.arrays().items()}
            logits = model(given)
            answers = None if task.decoding is None else decode(model, given, **asdict(task.decoding))
            batch = next(anew)
            there = batch.tensors(where)
            see(not same(given.arrays(), before), there, logits)
            totals = add_totals(totals, task.totals(logits, there))
            if answers is not None:
                totals = add_totals(totals, task.decoded(answers, batch))
            beat()
    model.train(training)
    return task.scores(totals)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two batches hold the same numbers."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
