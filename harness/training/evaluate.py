"""The scores of a model on a split, as records hold them."""

from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor

from harness.isolation.beat import beat
from tasks.base import Split, Task, Totals, add_totals
from zoo.contract import Batch, Model
from zoo.decoding import decode

See = Callable[[Batch, Tensor], None]


def evaluate(
    model: Model, task: Task, split: Split, *, size: int, limit: int | None, see: See = lambda batch, logits: None
) -> dict[str, float]:
    """Every metric of the task on a split, in fp32 and eval mode; `see` is shown each batch with its logits."""
    where = next(model.parameters()).device
    training = model.training
    model.eval()
    totals: Totals = {}
    with torch.no_grad():
        for batch in task.evaluation(split, size=size, limit=limit):
            there = batch.tensors(where)
            logits = model(there)
            see(there, logits)
            totals = add_totals(totals, task.totals(logits, there))
            if task.decoding is not None:
                answers = decode(model, there, **asdict(task.decoding))
                totals = add_totals(totals, task.decoded(answers, batch))
            beat()
    model.train(training)
    return task.scores(totals)
