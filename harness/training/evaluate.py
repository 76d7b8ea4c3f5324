"""The scores of a model on a split, as records hold them."""

from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor

from harness.isolation.beat import beat
from tasks.base import Split, Task, Totals, add_totals
from zoo.contract import Batch, Model
from zoo.decoding import decode

See = Callable[[Batch, Batch, Tensor], None]
"""Is shown what the model was given, the same batch made anew, and the logits."""


def evaluate(
    model: Model, task: Task, split: Split, *, size: int, limit: int | None, see: See = lambda *_: None
) -> dict[str, float]:
    """Every metric of the task on a split, in fp32 and eval mode; `see` is shown each batch with its logits.

    What the model was given, and could have written on, is not what it is scored by: that is made anew.
    """
    where = next(model.parameters()).device
    training = model.training
    model.eval()
    totals: Totals = {}
    with torch.no_grad():
        anew = iter(task.evaluation(split, size=size, limit=limit))
        for given in task.evaluation(split, size=size, limit=limit):
            given = given.tensors(where)
            logits = model(given)
            answers = None if task.decoding is None else decode(model, given, **asdict(task.decoding))
            batch = next(anew)
            there = batch.tensors(where)
            see(given, there, logits)
            totals = add_totals(totals, task.totals(logits, there))
            if answers is not None:
                totals = add_totals(totals, task.decoded(answers, batch))
            beat()
    model.train(training)
    return task.scores(totals)
