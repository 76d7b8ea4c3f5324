"""Gates of effort: no more training than the budget allows, on the same data in the same order as every other row."""

import random
from typing import Any

import torch

from harness.gates.float64 import copied, undone
from harness.gates.hidden import bits, saved
from harness.gates.measure import result, worst
from harness.gates.question import asked
from harness.gates.registry import FIRST, LAST, gate
from harness.gates.subject import Subject
from harness.gates.work import Elements, Leaving
from harness.records.record import Gate
from harness.records.stream_hash import extend_hash
from zoo.contract import Batch
from zoo.size import Products

WORK = 0.01
"""Relative: shapes of one task's batches are equal, and so is the work."""
ELEMENTS = 1.0
"""The registered architectures stay below 0.4 at a width of 16, below 0.13 at 64."""
INJECTED = 0.05
"""A loss of its own, such as one that balances experts, has a gradient for their router alone."""
CLOCK, LAG = 0.2, 0.01
"""By how much less a run's seconds may be than the watch's: relative, and of each step."""
CHECKED = 12
"""Batches that are made again."""
OF_OTHER_GATES = {
    "scoring changed the model",
    "a batch was changed while it was scored",
    "a batch was changed by the model",
}
"""Violations that another gate reports."""


@gate("more training than the budget allows", when=LAST)
def within_budget(subject: Subject) -> Gate:
    """An independent count of what was used; updates and gradients the harness did not ask for; work per step."""
    watch = subject.watch
    steps = {int(s["step"]) for s in watch.optimizer.state.values() if "step" in s}
    odd = {name: n for name, n in watch.violations.items() if name not in OF_OTHER_GATES}
    kinds = f" ({'; '.join(sorted(odd))})" if odd else ""
    used = subject.used
    miscounted = (watch.steps != used.steps) + (watch.tokens != used.tokens) + (not steps <= {watch.steps})
    miscounted += used.flops != used.steps * subject.step.flops
    miscounted += used.seconds < watch.seconds * (1 - CLOCK) - LAG * watch.steps
    return worst(
        result(sum(odd.values()), 0, f"changes of parameters or gradients outside of the optimizer's updates{kinds}"),
        result(_otherwise_begun(subject), 0, "weights that the first step found and the run's seed does not give"),
        result(_otherwise_told(subject), 0, "parameters whose learning rate or decay is not what the model asks for"),
        result(miscounted, 0, "meters that disagree with what was seen: steps, tokens, FLOPs, seconds, optimizer"),
        _over(subject),
        *_work(subject),
    )


def _otherwise_begun(subject: Subject) -> int:
    """1 if the weights before the first step were others than those of the model built anew."""
    watch = subject.watch
    if not watch.steps or watch.trained is not watch.model:
        return 0
    return int(bits(saved(subject.built(subject.seed)).values()) != watch.start)


def _otherwise_told(subject: Subject) -> int:
    """Parameters whose group in the optimizer is not the one that the model's overrides ask for now."""

    def told(groups: list[dict[str, Any]]) -> dict[int, tuple[Any, Any]]:
        return {id(p): (group.get("peak"), group["weight_decay"]) for group in groups for p in group["params"]}

    then, now = told(subject.watch.optimizer.param_groups), told(subject.groups())
    return sum(then.get(one) != now.get(one) for one in then.keys() | now.keys())


def _over(subject: Subject) -> Gate:
    """What was used beyond the limit of the budget."""
    meter, limit = subject.stop.meter, subject.stop.limit
    used, grace = float(subject.used.of(meter)), 0.0
    if meter == "seconds":
        grace = subject.watch.longest_step
    elif subject.used.steps <= 1:
        grace = used  # one step is always made
    return result(max(0.0, used - grace - limit) / limit, 0.0, f"{meter} used beyond the limit, relative")


def _work(subject: Subject) -> list[Gate]:
    """FLOPs of later steps against those of the first, by which all are counted."""
    watch = subject.watch
    if not subject.step.flops:
        return []
    batch = subject.task.batch("train", 0, subject.seed, size=subject.examples)
    with undone(subject.model, training=True), torch.enable_grad():
        last = watch.count_flops(subject.model, batch)
    extra = max(count / subject.step.flops - 1 for count in [*watch.flops, last])
    found = result(max(0.0, extra), WORK, "FLOPs of a later step beyond the first one's, relative")
    return [found, *_uncounted(subject, batch.tensors(subject.device))]


def _uncounted(subject: Subject, batch: Batch) -> list[Gate]:
    """What a training step does that has no FLOPs or leaves them out, and what it learns from beside the loss.

    The loss is times zero, so that every gradient there is comes from elsewhere. What the model has left out of the
    count is nothing in the forward pass and, in the backward pass, which may compute again, no more than that took.
    """
    model, elements, products, leaving = copied(subject.model), Elements(), Products(), Leaving()
    with undone(model, training=True), torch.enable_grad(), torch.random.fork_rng(), elements, products:
        with leaving, subject.watch.autocast():
            logits = model(asked(batch))
        forward, ahead = max(1, products.get_total_flops()), products.left_out
        (0.0 * subject.loss(logits, batch)).backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    injected = sum(int((grad.nan_to_num() != 0).sum()) for grad in grads) / max(1, sum(g.numel() for g in grads))
    left_out = max(ahead, products.left_out - ahead - forward) / forward
    per_flop = elements.count / subject.step.flops
    model.zero_grad()
    return [
        result(per_flop, ELEMENTS, "elements that uncounted operators go over, per FLOP counted"),
        result(leaving.count, 0, "tensors whose numbers are taken out of torch in a step, where no FLOP is counted"),
        result(left_out, WORK, "FLOPs that the model has left out of the count, over those of a forward pass"),
        result(injected, INJECTED, "of the parameters, those that get a gradient from a loss times zero"),
    ]


@gate("other training data, or in another order", when=FIRST)
def data_order(subject: Subject) -> Gate:
    """Make the batches of randomly drawn steps again, by a task built anew."""
    digests, task = subject.watch.digests, subject.build_task()

    def made(step: int) -> str:
        return extend_hash("", type(task).batch(task, "train", step, subject.seed, size=subject.examples))

    drawn = random.SystemRandom().sample(sorted(digests), min(CHECKED, len(digests)))
    steps = sorted({*drawn, *sorted(digests)[:2]})
    other = [step for step in steps if made(step) != digests[step]]
    changed = subject.watch.violations.get("a batch was changed by the model", 0)
    parts = [f"step {step}" for step in other] + (["a batch changed by the model"] if changed else [])
    which = f": {', '.join(parts[:4])}" if parts else ""
    about = f"of {len(steps)} batches made again, those that differ{which}"
    return result(len(other) + changed, 0, about)
