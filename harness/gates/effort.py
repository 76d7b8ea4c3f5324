"""Gates of effort: no more training than the budget allows, on the same data in the same order as every other row."""

import random

import torch

from harness.gates.float64 import copied, undone
from harness.gates.measure import result, worst
from harness.gates.registry import FIRST, LAST, gate
from harness.gates.subject import Subject
from harness.gates.work import Elements, Leaving
from harness.records.record import Gate
from harness.records.stream_hash import extend_hash
from zoo.contract import Batch

WORK = 0.01
"""Relative: shapes of one task's batches are equal, and so is the work."""
ELEMENTS = 1.0
"""The registered architectures stay below 0.4 at a width of 16, below 0.13 at 64."""
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
        result(miscounted, 0, "meters that disagree with what was seen: steps, tokens, FLOPs, seconds, optimizer"),
        _over(subject),
        *_work(subject),
    )


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
    elements, left = _uncounted(subject, batch.tensors(subject.device))
    return [
        result(max(0.0, extra), WORK, "FLOPs of a later step beyond the first one's, relative"),
        result(elements / subject.step.flops, ELEMENTS, "elements that uncounted operators go over, per FLOP counted"),
        result(left, 0, "tensors whose numbers are taken out of torch in a step, where no FLOP is counted"),
    ]


def _uncounted(subject: Subject, batch: Batch) -> tuple[int, int]:
    """What a training step does that has no FLOPs: elements gone over one by one, and tensors taken out of torch."""
    model = copied(subject.model)
    with undone(model, training=True), torch.enable_grad(), torch.random.fork_rng(), Elements() as all_:
        with Leaving() as leaving, subject.watch.autocast():
            logits = model(batch)
        subject.loss(logits, batch).backward()
    model.zero_grad()
    return all_.count, leaving.count


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
