"""Gates of knowledge: the test split is answered no better than training on other data explains."""

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.gates.measure import result, worst
from harness.gates.question import asked
from harness.gates.registry import FIRST, gate
from harness.gates.subject import Subject
from harness.records.record import Gate
from harness.records.stream_hash import hash_examples
from tasks.base import Split
from zoo.contract import Batch, Model

EXAMPLES, STEPS, LOGITS = 256, 32_768, 1 << 26
"""Most examples of a split, most steps of input, most logits; 32 examples in any case."""
DEALT, TOGETHER = 16, 1 << 12
"""Examples among which targets are dealt, and steps of input that one pass takes, but for as many examples."""
MARGIN, RIGHT_MARGIN = 0.1, 0.15
"""By how much of a uniform guess's nats, and by how many right answers, a model may fit the targets of its own examples
better than those of others before it is trained: an untied network does not at all, a copy of its input may."""
NATURAL, DRAWN = 0.25, 0.1
"""Part of the held-out loss by which test may be lower, beyond sampling error: natural splits differ (by up to 6% in
the published records), splits of one generator only by chance."""
NATURAL_RIGHT, DRAWN_RIGHT = 0.15, 0.05
"""The same in right answers."""
EVEN = 0.01
"""By how much a parameter's numbers may differ from their mean at the start and yet be a gate that may open later."""
FRESH = 256
"""Examples on which equality by chance is measured."""
OVERLAP = 0.02
"""Of the test examples. Text repeats itself: of windows of 64 bytes 0.14% do."""


@dataclass(frozen=True)
class Answers:
    """Per example: nats per counted target, and the share of right answers."""

    nats: NDArray[np.float64]
    right: NDArray[np.float64]
    other_nats: NDArray[np.float64]
    other_right: NDArray[np.float64]
    """The same against targets dealt out anew among some examples: what leaning towards common ones gives."""


def answers(model: Model, batches: Iterable[Batch]) -> Answers:
    """How a model in evaluation mode answers; scored is the softmax of its logits."""
    found: list[tuple[Tensor, ...]] = []
    device = next(model.parameters()).device
    deal = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for batch in batches:
            there = batch.tensors(device)
            logits = model(asked(there)).float()
            counted = torch.ones_like(there.targets, dtype=torch.bool) if there.counted is None else there.counted
            dealt = there.targets.clone()
            for some, among in zip(dealt.split(DEALT), counted.split(DEALT), strict=True):
                own = some[among]
                some[among] = own[torch.randperm(len(own), generator=deal).to(device)]
            found.append((*_scored(logits, there.targets, counted), *_scored(logits, dealt, counted)))
    return Answers(*(torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True)))


def _scored(logits: Tensor, targets: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Nats and right answers per example, means over what counts."""
    nats = -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0].double()
    right = (logits.argmax(-1) == targets).double()
    weight = counted.flatten(1).sum(1).clamp(min=1) if counted.dim() > 1 else torch.ones_like(nats)
    kept = [value.masked_fill(~counted, 0) for value in (nats, right)]
    first, second = ((value.flatten(1).sum(1) if value.dim() > 1 else value) / weight for value in kept)
    return first, second


def _limit(subject: Subject) -> int:
    shape = subject.task.shape
    return max(32, min(EXAMPLES, STEPS // shape.length, LOGITS // (shape.length * shape.outputs)))


def _together(subject: Subject) -> int:
    """Examples in a pass."""
    return DEALT * max(1, TOGETHER // (DEALT * subject.task.shape.length))


def _answers(subject: Subject, model: Model, split: Split) -> Answers:
    return answers(model, subject.drawn(split, size=_together(subject), limit=_limit(subject)))


@gate("the model knows answers before it is trained")
def untrained(subject: Subject) -> Gate:
    """Score the architecture built anew, by two seeds, and the trained model with new parameters, on test examples.

    A network that was not trained may lean towards answers that are common, but then the answers to other examples fit
    what it says as well as an example's own. What starts at nothing, and so may hide what is behind it, is judged with
    the values that training gave it, and with drawn ones.
    """
    models = [subject.built(subject.draw.getrandbits(32)), subject.built(subject.seed)]
    models += _renewed(subject)
    return worst(*(_knows(_answers(subject, model, "test"), subject.task.shape.outputs) for model in models))


def _renewed(subject: Subject) -> Iterator[Model]:
    """The trained model with new parameters: all; all but those that started at one value; these drawn, and negated.

    Drawn numbers are one at least in magnitude, of either sign: a gate may open to one side, and only when it is wide.
    """
    chance = subject.generator()
    fresh = {name: p.detach() for name, p in subject.built(subject.draw.getrandbits(32)).named_parameters()}
    even = {name: torch.randn(p.shape, generator=chance) for name, p in fresh.items() if _even(p)}
    drawn = {name: value + value.sign() for name, value in even.items()}
    apart = {name: p for name, p in fresh.items() if name not in even}
    for new in (fresh, apart, apart | drawn, apart | {name: -value for name, value in drawn.items()}):
        try:
            model = copy.deepcopy(subject.model).eval()
        except Exception:  # tensors inside a graph cannot be copied; the new models are judged alone
            return
        own = dict(model.named_parameters())
        if {n: p.shape for n, p in own.items()} != {n: p.shape for n, p in fresh.items()}:
            return
        for name, value in new.items():
            own[name].data.copy_(value)
        yield model


def _even(parameter: Tensor) -> bool:
    return bool((parameter - parameter.mean()).abs().max() <= EVEN)


def _knows(found: Answers, outputs: int) -> Gate:
    def beyond(better: NDArray[np.float64]) -> float:
        return float(better.mean() - 6 * better.std() / math.sqrt(len(better)))

    nats = beyond(np.nan_to_num(found.other_nats - found.nats)) / math.log(max(outputs, 2))
    right = beyond(found.right - found.other_right)
    about = "before training, beyond what other examples' targets give, less six standard errors"
    return worst(result(nats, MARGIN, f"certainty {about}"), result(right, RIGHT_MARGIN, f"right answers {about}"))


@gate("the test split is known better than other held-out data")
def held_out_gap(subject: Subject) -> Gate:
    """Test against `valid` and `tune`, and against fresh examples like test's where a generator draws them.

    Loses its power where a model knows all of them; and does not see an advantage below its limits.
    """
    test = _answers(subject, subject.model, "test")
    found = [
        _gap(test, _answers(subject, subject.model, split), split, NATURAL, NATURAL_RIGHT)
        for split in ("valid", "tune")
        if _has(subject, split)
    ]
    fresh = _fresh(subject) if subject.task.count("train") is None else []
    if fresh:
        found.append(_gap(test, answers(subject.model, fresh), "fresh examples", DRAWN, DRAWN_RIGHT))
    return worst(*found) if found else result(0.0, NATURAL, "nothing else is held out")


def _has(subject: Subject, split: Split) -> bool:
    try:
        return subject.task.count(split) != 0
    except ValueError:
        return False


def _gap(test: Answers, other: Answers, name: str, loss_limit: float, right_limit: float) -> Gate:
    """By how much test is answered better, less five standard errors of the difference."""

    def beyond(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float(a.mean() - b.mean() - 5 * math.sqrt(a.var() / len(a) + b.var() / len(b)))

    loss = beyond(other.nats, test.nats) / max(float(other.nats.mean()), 0.05)
    right = beyond(test.right, other.right)
    return worst(
        result(loss, loss_limit, f"loss below that of {name}, less five standard errors, relative"),
        result(right, right_limit, f"right answers above {name}, less five standard errors"),
    )


def _fresh(subject: Subject) -> list[Batch]:
    """Examples drawn as test's are, behind its last; none where the task has no others."""
    task, count = subject.task, subject.task.count("test")
    if not count or hasattr(task, "at"):  # an extrapolated task is scored at several lengths
        return []
    try:
        ids, size = np.arange(count, count + _limit(subject), dtype=np.int64), _together(subject)
        return [task.examples("test", ids[i : i + size], 0).tensors() for i in range(0, len(ids), size)]
    except Exception:  # each task says in its own way that a split has ended
        return []


@gate("test examples were trained on", when=FIRST)
def test_overlap(subject: Subject) -> Gate:
    """Test examples whose inputs were trained on in this run.

    How many are equal by chance alone is told by the examples of `valid` and, where training never repeats, by fresh
    ones of training; those that are in test too say nothing.
    """
    watch, none = subject.watch, np.zeros(0, dtype=np.uint64)
    test, trained = np.concatenate([none, *watch.test_hashes]), np.concatenate([none, *watch.hashes])
    if watch.shift:
        test = test[test >> np.uint64(64 - watch.shift) == 0]
    share = float(np.isin(test, trained).mean()) if len(test) else 0.0
    expected = min(_by_chance(found, test, trained) for found in _others(subject)) * len(test)
    limit = max(OVERLAP, (expected + 5 * math.sqrt(expected) + 2) / max(1, len(test)))
    return result(share, limit, "part of the test examples that were trained on")


def _others(subject: Subject) -> list[NDArray[np.uint64]]:
    """Hashes of examples that were not trained on."""
    task, found = subject.task, []
    if _has(subject, "valid"):
        found.append(np.concatenate([hash_examples(b) for b in task.evaluation("valid", size=64, limit=FRESH)]))
    if task.count("train") is None:
        found.append(hash_examples(task.batch("train", 10**6, subject.seed + 7919, size=FRESH)))
    return found or [np.zeros(0, dtype=np.uint64)]


def _by_chance(found: NDArray[np.uint64], test: NDArray[np.uint64], trained: NDArray[np.uint64]) -> float:
    """An upper bound on the share of examples that equal one of training by chance, from those `found`."""
    apart = found[~np.isin(found, test)]
    natural = int(np.isin(apart, trained).sum())
    return min(1.0, (natural + 4 * math.sqrt(natural) + 2) / max(len(apart), FRESH // 2))
