"""Gates of scores: each is of a distribution, for one example, from its inputs and the saved weights alone."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import Tensor

from harness.gates.float64 import COARSE
from harness.gates.hidden import saved
from harness.gates.measure import nan_to_inf, relative, result, worst
from harness.gates.question import asked
from harness.gates.registry import FIRST, gate
from harness.gates.subject import AS_SCORED, Subject, joined
from harness.gates.watch import ill_formed
from harness.records.record import Gate
from tasks.base import Task, Totals, add_totals, scores
from tasks.parts import rows
from zoo.contract import Batch

SUMS = 512
"""Classes a sum goes over, times places it is formed at; beyond, a part is compared with the softmax."""


@gate("what is scored is no probability distribution")
def normalised(subject: Subject) -> Gate:
    """Σ exp(−nats) over every class as the target, at some places, by the task's own `totals` and `loss`.

    Nats are those of `loss`, and of a metric in bits or nats; of a metric that counts right answers, the sum over the
    classes is one at most. What the model gives must be a plain finite tensor of the shape its role promises, here and
    wherever the record's scores were made. Logits need not sum to anything: the task normalises them.
    """
    about = "largest distance from 1 of the summed probabilities, as the task scores them"
    batch = rows(subject.batch(), slice(0, 2)).tensors(subject.device)
    logits = subject.answer(batch)
    wrong = ill_formed(logits, batch, subject.task.shape.outputs) or subject.watch.malformed
    if wrong:
        return result(math.inf, 1e-3, f"the model gives {wrong}")
    classes = logits.shape[-1]
    chance = subject.generator()
    places = _places(batch, chance)[: max(1, min(4, SUMS // classes))]
    chosen = list(range(classes))
    if classes > 4 * SUMS:
        chosen = sorted({*torch.randint(classes, (256,), generator=chance).tolist()})
    try:
        found = max((_deviation(subject.task, logits, batch, place, chosen) for place in places), default=0.0)
    except Exception as error:  # a plug-in task may raise anything
        return result(math.inf, 1e-3, f"{about}; scoring one target raises {type(error).__name__}: {error}")
    return worst(result(found, 1e-3, about), *_added_up(subject))


def _added_up(subject: Subject) -> Iterator[Gate]:
    """The scores of the record's batches against the quotients of what their examples give one by one."""
    task, about = subject.task, "largest relative difference of a batch's scores to those of its examples one by one"
    for batch, logits in subject.scored:
        parts: Totals = {}
        for row in range(len(batch)):
            one = slice(row, row + 1)
            parts = add_totals(parts, task.totals(logits[one], rows(batch, one)))
        apart = scores(parts)
        for found in (task.scores(task.totals(logits, batch)), task.scores(parts)):
            both = [(found[name], apart[name]) for name in found.keys() & apart.keys() if parts[name][1]]
            differ = max((abs(one - other) / max(abs(other), 0.01) for one, other in both), default=0.0)
            yield result(differ, 1e-3, about)


def _places(batch: Batch, chance: torch.Generator) -> list[tuple[int, ...]]:
    counted = torch.ones_like(batch.targets, dtype=torch.bool) if batch.counted is None else batch.counted
    found = [tuple(place) for place in counted.nonzero().tolist()]
    order = torch.randperm(len(found), generator=chance).tolist()
    return [found[index] for index in order]


def _deviation(task: Task, logits: Tensor, batch: Batch, place: tuple[int, ...], chosen: list[int]) -> float:
    """At one place, over these classes: the worst of every score's sum against 1, or the softmax's part."""
    row, one = logits[place[0] : place[0] + 1], rows(batch, slice(place[0], place[0] + 1))
    at = (0, *place[1:])
    counted = torch.zeros_like(one.targets, dtype=torch.bool)
    counted[at] = True
    sums: dict[str, float] = {}
    for target in chosen:
        targets = one.targets.clone()
        targets[at] = target
        other = replace(one, targets=targets, counted=counted if len(at) > 1 else None)
        scored = dict(_probabilities(task, task.totals(row, other)))
        scored["the training loss"] = math.exp(-float(task.loss(row, other)))
        for name, value in scored.items():
            sums[name] = sums.get(name, 0.0) + value
    z = row[at].double()
    want = float(z.softmax(-1)[chosen].sum()) if len(chosen) < len(z) else 1.0
    above_one = [value - 1.0 for name, value in sums.items() if name.startswith("right")]
    apart = [nan_to_inf(abs(value - want)) for name, value in sums.items() if not name.startswith("right")]
    return max(0.0, *above_one, *apart)


def _probabilities(task: Task, totals: Totals) -> Iterator[tuple[str, float]]:
    """What each score says the target's probability is, or (`right …`) how far it counts as right."""
    for name, (value, weight) in totals.items():
        own = name.partition("@")[0] == task.metric.name.partition("@")[0]
        if name.partition("@")[0] == "loss":
            yield name, math.exp(-value / weight)
        elif own and task.metric.unit.startswith("bits"):
            yield name, 2.0**-value
        elif own and task.metric.unit.startswith("nats"):
            yield name, math.exp(-value)
        elif own and task.metric.higher_is_better and weight and 0 <= value / weight <= 1:
            yield f"right {name}", value / weight


def _scored(subject: Subject, batch: Batch) -> tuple[Tensor, list[list[int]]]:
    """What the model gives, and writes, when a task that has one batch is scored as the record's was."""
    logits, written = list[Tensor](), list[list[int]]()

    def totals(given: Tensor, batch: Batch) -> Totals:
        logits.append(given.detach().clone())
        return {}

    def decoded(answers: Sequence[Sequence[int]], batch: Batch) -> Totals:
        written.extend(map(list, answers))
        return {}

    task = SimpleNamespace(decoding=subject.task.decoding, totals=totals, decoded=decoded, scores=dict)
    task.evaluation = lambda *_, **__: [batch]
    subject.score(subject.model, task)
    return logits[0], written


@gate("outputs depend on the targets")
def answers_unseen(subject: Subject) -> Gate:
    """Other targets, the same inputs, through the very scoring the record was made by: equal logits, equal answers.

    And those of other examples in batches that the record was scored on.
    """
    batch, outputs = subject.batch(), subject.task.shape.outputs
    shift = torch.randint(1, max(2, outputs), batch.targets.shape, generator=subject.generator())
    other = replace(batch, targets=(batch.targets + shift) % outputs)
    (before, written), (after, rewritten) = _scored(subject, batch), _scored(subject, other)
    found = [relative(after, before) if written == rewritten else math.inf]
    for scored, logits in subject.scored:
        turned = replace(scored, targets=scored.targets.flip(0))
        found.append(relative(subject.answer(turned), logits))
    return result(max(found), 1e-6, "largest relative change of logits when the targets are others")


@gate("an example's outputs depend on how many are scored with it")
def batch_size(subject: Subject) -> Gate:
    """Examples alone, in pairs, and eight together; and in the batches the record's scores were made of."""
    precise = subject.float64
    batch = subject.batch().tensors(precise.device)
    whole = precise(batch)
    parts = [torch.cat([precise(rows(batch, slice(i, i + n))) for i in range(0, len(batch), n)]) for n in (1, 2)]
    about = f"largest relative difference between examples alone, in pairs and eight together, {precise.about}"
    found = [result(max(relative(part, whole) for part in parts), precise.limit, about)]
    for scored, logits in subject.scored:
        some = range(min(4, len(scored)))
        alone = torch.cat([subject.answer(rows(scored, slice(i, i + 1))) for i in some])
        about = f"largest relative difference between examples alone and as scored, {len(scored)} together"
        found.append(result(relative(alone, logits[: len(some)]), AS_SCORED, about))
    return worst(*found)


@gate("an example's outputs depend on which others are scored with it")
def batch_neighbours(subject: Subject) -> Gate:
    """As many examples together, but in another order and with others beside them; the record's batches backwards."""
    precise = subject.float64
    batch, more = (subject.batch(size).tensors(precise.device) for size in (8, 16))
    whole, backwards = precise(batch), list(range(len(batch)))[::-1]
    largest = relative(precise(rows(batch, backwards)), whole[backwards])
    for first in range(2):
        kept = list(range(len(batch)))[first::2]
        others = rows(more, [len(more) - 1 - i for i in range(len(batch) - len(kept))])
        mixed = joined([rows(batch, kept), others])
        largest = max(largest, relative(precise(mixed)[: len(kept)], whole[kept]))
    about = "largest relative difference between an example among some and among others"
    found = [result(largest, precise.limit, f"{about}, {precise.about}")]
    about = "largest relative difference to what was scored, when the batch is turned around"
    for scored, logits in subject.scored:
        backwards = list(range(len(scored)))[::-1]
        found.append(result(relative(subject.answer(rows(scored, backwards)), logits[backwards]), AS_SCORED, about))
    return worst(*found)


@gate("scoring again gives other scores", when=FIRST)
def repeatable(subject: Subject) -> Gate:
    """One batch twice; and what was scored first for the record, again now that all has been scored."""
    batch = subject.batch().tensors(subject.device)
    twice = relative(subject.answer(batch), subject.answer(batch))
    about = "largest relative difference between the record's scoring and a later one"
    return worst(
        result(twice, 1e-6, "largest relative difference between two evaluations of one batch"),
        *(result(relative(subject.answer(scored), logits), 1e-6, about) for scored, logits in subject.scored),
    )


@gate("the saved weights do not give the scores")
def weights_alone(subject: Subject) -> Gate:
    """A model built anew that gets the saved weights gives the same logits, as it must when a run goes on.

    Weights are parameters and buffers, and nothing that a module may add to them.
    """
    about = "largest relative difference to a new model with the saved weights"
    batch = subject.batch().tensors(subject.device)
    twin = subject.built(subject.seed)
    own, there = saved(twin), saved(subject.model)
    if own.keys() != there.keys() or any(own[name].shape != there[name].shape for name in own):
        odd = sorted(own.keys() ^ there.keys()) or [n for n in own if own[n].shape != there[n].shape]
        return result(math.inf, COARSE, f"{about}: {', '.join(odd[:3])} not there, or of another shape")
    for name, tensor in own.items():
        tensor.data.copy_(there[name])
    pairs = [(batch, subject.answer(batch)), *subject.scored]
    return result(max(relative(twin(asked(batch)), logits) for batch, logits in pairs), COARSE, about)


@gate("scoring changes the model, or what it is asked", when=FIRST)
def evaluation_frozen(subject: Subject) -> Gate:
    """Nothing that a model can remember numbers in changes while it is scored, nor does what it is given."""
    seen = subject.watch.violations
    count = seen.get("scoring changed the model", 0) + seen.get("a batch was changed while it was scored", 0)
    return result(count, 0, "evaluations that changed a tensor of the model, and batches that the model changed")
