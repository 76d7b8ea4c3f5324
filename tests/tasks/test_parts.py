"""Parts of a batch add up to it, and what does not is refused."""

import pytest
import torch

import tasks
from tasks.parts import check_parts, split
from zoo.types import Batch


@pytest.mark.parametrize(
    "counted", [None, torch.tensor([[1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1]]).bool()]
)
def test_losses_and_gradients_of_parts_add_up_to_those_of_the_batch(counted):
    """Also where a part counts no target."""
    task, draw = tasks.build("mqar", length=8, pairs=2, vocab=16), torch.Generator().manual_seed(0)
    batch = Batch(inputs=torch.zeros(5, 3), targets=torch.randint(4, (5, 3), generator=draw), counted=counted)
    logits = torch.randn(5, 3, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    (whole,) = torch.autograd.grad(task.loss(logits, batch), logits)
    for count in (2, 3, 5):
        parts = split(batch, count)
        rows = logits.split([len(part) for part, _ in parts])
        value = sum(task.loss(row, part) * weight for row, (part, weight) in zip(rows, parts, strict=True))
        assert abs(float(value - task.loss(logits, batch))) < 1e-6
        torch.testing.assert_close(torch.autograd.grad(value, logits)[0], whole)


def test_a_loss_that_is_no_mean_over_targets_is_refused():
    task = tasks.build("mqar", length=8, pairs=2, vocab=16)
    check_parts(task, 8, 4)
    with pytest.raises(ValueError, match="3 examples cannot be split into 4 parts"):
        check_parts(task, 3, 4)
    mean = task.loss

    def of_rows(logits, batch):
        rows = [Batch(None, batch.targets[[i]], counted=batch.counted[[i]]) for i in range(len(logits))]
        return sum(mean(logits[[i]], row) for i, row in enumerate(rows)) / len(rows)

    for loss in (lambda logits, batch: mean(logits, batch) * len(logits), of_rows):
        task.loss = loss
        with pytest.raises(ValueError, match="no mean over the targets that count"):
            check_parts(task, 8, 4)
