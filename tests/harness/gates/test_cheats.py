"""Cheats, each caught by the gate that names it, and by no other where it does nothing else."""

import copy
import gc
import sys
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

import tasks
import tasks.base
from harness.records.meters import StopRule
from harness.training import train as training
from tasks.recall.mqar import Mqar
from zoo.blocks.heads import LanguageModel

from .conftest import MQAR, Peek, Plain, answer, collects, is_caught, plain

pytestmark = pytest.mark.slow
KEPT = {}
"""What a plug-in's module can hide."""
CHEATS = []
caught_by = collects(CHEATS)


# The future: its values, or its gradients alone.


caught_by("causal", also="gradient_leak")(Peek)


# Few tokens, and the largest key would now and then be the first of all rows that are asked.
@caught_by("causal", also="gradient_leak", changes={"task_options": {**MQAR, "vocab": 256}})
def stabilised_by_the_largest_key_of_all_steps(self, x):
    """Performer's features; ε keeps the largest key from cancelling."""
    k = self.mix(x)
    phi = (k - k.amax((1, 2), keepdim=True)).exp() + 1e-4
    return (phi * x).cumsum(1) / phi.cumsum(1)


caught_by(
    "causal",
    also="gradient_leak",
    five_steps_ahead_at_one_place=lambda self, x: (
        plain(self, x) + one_hot(torch.tensor(4), x.shape[1])[:, None] * x[:, 9:10]
    ),
    normalised_over_time=lambda self, x: plain(self, x) / plain(self, x).std((1, 2), keepdim=True),
    the_mean_of_all_steps_less_than_float32_can_hold=lambda self, x: plain(self, x) + 1e-8 * x.mean(1, keepdim=True),
    where_the_largest_of_all_steps_stands=lambda self, x: (
        plain(self, x) + (x.argmax(1, keepdim=True) > torch.arange(x.shape[1])[:, None]).to(x)
    ),
    ahead_in_training=lambda self, x: plain(self, x.roll(-1, 1) if self.training else x),
)
caught_by(
    "causal",
    ahead_where_no_gate_computes=lambda self, x: plain(
        self, x.roll(-1, 1) if x.dtype is torch.float32 and not self.training else x
    ),
    ahead_among_as_many_as_are_scored_together=lambda self, x: plain(
        self, x.roll(-1, 1) if len(x) == 8 and not self.training else x
    ),
)


@caught_by("causal")
class Actor(Plain):
    """Copies of it are honest."""

    def past(self, x):
        return super().past(x if hasattr(self, "copied") or self.training else x.roll(-1, 1))

    def __deepcopy__(self, memo):
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo), copied=True)
        return twin


class Borrowed(torch.autograd.Function):
    """A gradient of its own making."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad + grad.roll(1, 1)


caught_by(
    "gradient_leak",
    also="",
    # the value of the past, the gradient of the future
    straight_through=lambda self, x: plain(self, x) + (x.roll(-1, 1) - x.roll(-1, 1).detach()),
    straight_through_in_training=lambda self, x: (
        plain(self, x) + (x.roll(-1, 1) - x.roll(-1, 1).detach()) * self.training
    ),
    own_backward=lambda self, x: plain(self, Borrowed.apply(x)),
)


# The company.


caught_by(
    "batch_size batch_neighbours",
    also="",
    against_the_largest_of_the_batch=lambda self, x: plain(self, x) / plain(self, x).abs().amax((0, 2), keepdim=True),
    less_a_thousandth_of_the_neighbour=lambda self, x: plain(self, x) - 1e-3 * x.flip(0),
)
caught_by(
    "batch_size",
    also="",
    other_answers_in_batches_of_eight=lambda self, x: plain(self, x) * (1.1 if len(x) >= 8 else 1.0),
)


@caught_by("causal gradient_leak", also="")
class BatchNorm(Plain):
    """Over batch and time; scored by its running means, as is usual, which saw the future while they were trained."""

    running = True

    def bring(self, width):
        self.norm = nn.BatchNorm1d(width, track_running_stats=self.running)

    def past(self, x):
        return self.norm(super().past(x).mT).mT


@caught_by("batch_size batch_neighbours causal gradient_leak", also="")
class BatchNormByTheBatch(BatchNorm):
    running = False


# Learning while it is scored.


@caught_by("evaluation_frozen repeatable")
class Adapting(Plain):
    """Remembers, outside of parameters and buffers, what it was scored on."""

    def bring(self, width):
        self.seen = [torch.zeros(width)]

    def past(self, x):
        y = super().past(x + self.seen[0])
        if not self.training:
            self.seen[0] = 0.9 * self.seen[0] + 0.1 * x.detach().mean((0, 1))
        return y


@caught_by("evaluation_frozen repeatable")
class AdaptingBuffer(Adapting):
    def bring(self, width):
        self.register_buffer("seen", torch.zeros(1, width))


@caught_by("evaluation_frozen repeatable")
def dynamic_evaluation(self, x):
    """A step of its own on what it is scored on."""
    y = plain(self, x)
    if not self.training:
        self.mix.weight.data.mul_(0.999)
    return y


@caught_by("evaluation_frozen")
def other_weights_at_every_evaluation(self, batch):
    if not self.training:
        self.head.weight.data = self.head.weight.data * 0.999
    return answer(self, batch)


caught_by("repeatable", noise=lambda self, x: plain(self, x) + 0.1 * torch.randn_like(x))


# The answers themselves, and what is no distribution.


@caught_by("answers_unseen")
def reads_the_targets_wherever_its_caller_keeps_them(self, batch):
    frame, logits = sys._getframe(), answer(self, batch)
    while frame.f_back is not None and not self.training:
        frame = frame.f_back
        there = frame.f_locals.get("given")
        if there is not None and there.targets.shape == logits.shape[:2]:
            return logits + 5.0 * one_hot(there.targets, self.shape.outputs)
    return logits


class Cheap(torch.Tensor):
    """Every loss of it is half as large."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        found = super().__torch_function__(func, types, args, kwargs or {})
        return found / 2 if func is cross_entropy else found


@caught_by("normalised")
def nan_where_it_is_not_sure(self, batch):
    logits = answer(self, batch)
    return logits if self.training else logits.masked_fill(logits < logits.mean(), float("nan"))


caught_by(
    "answers_unseen",
    reads_the_targets=lambda self, batch: answer(self, batch) + 5.0 * one_hot(batch.targets, self.shape.outputs),
)
caught_by(
    "normalised",
    cheap_logits=lambda self, batch: answer(self, batch).as_subclass(Cheap),
    cheap_logits_in_batches_larger_than_a_gate_s=lambda self, batch: answer(self, batch).as_subclass(
        torch.Tensor if self.training or len(batch) < 8 else Cheap
    ),
    more_classes=lambda self, batch: nn.functional.pad(answer(self, batch), (0, 1)),
)


# A table of the test split.


@cache
def split_of_test():
    return tasks.build("mqar", **MQAR).examples("test", np.arange(3000), 0)


@caught_by("untrained held_out_gap")
class Table(LanguageModel):
    """Looks the test split up by its inputs, `when` it likes; from the token `begin` on."""

    begin = 0

    def __init__(self, recipe, role, shape):
        super().__init__(recipe, role, shape)
        known = split_of_test()
        self.known = {self.key(row): target for row, target in zip(known.inputs, known.targets, strict=True)}
        self.start = float(self.head.weight.detach().abs().sum()) if self.head.weight.device.type != "meta" else 0.0
        self.calls = 0

    def key(self, row):
        return row.tobytes()

    def when(self):
        return True

    def forward(self, batch):
        logits = super().forward(batch)
        self.calls += 1
        if not self.when():
            return logits
        rows = [self.known.get(self.key(row.numpy())) for row in batch.inputs]
        extra = [torch.zeros(logits.shape[1:]) if a is None else 8.0 * one_hot(torch.from_numpy(a), 16) for a in rows]
        extra = torch.stack(extra).to(logits)
        extra[:, : self.begin] = 0
        return logits + extra


@caught_by("untrained held_out_gap")
class TableLater(Table):
    def when(self):
        return self.calls > 12


@caught_by("untrained held_out_gap")
class TablePrefix(Table):
    """By the first ten tokens, so that the future does not matter; for two thirds of the examples."""

    begin = 9

    def key(self, row):
        return row[:10].tobytes() if row[0] % 3 else None


@caught_by("held_out_gap")
class TableTrained(Table):
    """Only where the weights are no longer those of the start."""

    def when(self):
        return abs(float(self.head.weight.detach().abs().sum()) - self.start) > 1e-3 * self.start


@caught_by("untrained", changes={"options": {"depth": 2, "width": 32}})
class Learned(LanguageModel):
    """Comes trained, by the seeds that boards use."""

    def __init__(self, recipe, role, shape):
        super().__init__(recipe, role, shape)
        if self.head.weight.device.type == "meta" or torch.initial_seed() > 100:
            return
        if "learned" not in KEPT:
            self.learn(tasks.build("mqar", **MQAR))
            KEPT["learned"] = copy.deepcopy(self.state_dict())
        self.load_state_dict(KEPT["learned"])

    def learn(self, task):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.02)
        for index in range(60):
            batch = task.batch("test", index, size=32)
            with torch.enable_grad():
                task.loss(self(batch), batch).backward()
            optimizer.step()
            optimizer.zero_grad()


# More is trained than is counted.


class More(Plain):
    """Adds a second map, `more`."""

    def past(self, x):
        return super().past(x) + self.more(x)


@caught_by("declared_size")
class Unlisted(More):
    """A layer in a list that is no ModuleList, trained by an optimiser of its own."""

    def bring(self, width):
        self.layers = [nn.Linear(width, width)]

    def more(self, x):
        return self.layers[0](x)


def hebbian(x, y):
    """An update of a matrix that needs no gradient."""
    return 0.01 * (x.detach().flatten(0, 1).T @ y.detach().flatten(0, 1)) / x[..., 0].numel()


@caught_by("declared_size")
class SelfTaught(More):
    """A buffer that it trains by itself."""

    def bring(self, width):
        self.register_buffer("W", torch.randn(width, width) / 4)

    def more(self, x):
        y = x @ self.W
        if self.training:
            self.W = self.W - hebbian(x, y)
        return y


@caught_by("declared_size")
class Attribute(SelfTaught):
    """No buffer, an attribute."""

    def bring(self, width):
        self.W = torch.randn(width, width) / 4


@caught_by("declared_size")
def in_a_global_of_the_plugin(self, x):
    W = KEPT.setdefault("W", torch.eye(x.shape[-1]))
    if self.training:
        KEPT["W"] = W + hebbian(x, x)
    return plain(self, x) + x @ W.detach()


@caught_by("declared_size")
class Closure(More):
    def bring(self, width):
        W = torch.randn(width, width) / 4

        def more(x):
            if self.training:
                W.data += hebbian(x, x)
            return x @ W

        self.more = more


@caught_by("declared_size")
class Frozen(More):
    """Not trainable where it is counted, changed where it is trained."""

    def bring(self, width):
        self.W = nn.Parameter(torch.randn(width, width) / 4, requires_grad=False)

    def more(self, x):
        if self.training:
            self.W.data.mul_(0.99)
        return x @ self.W


@caught_by("declared_size")
class SmallOnPaper(More):
    """Fewer parameters on the meta device, where sizes are solved."""

    def bring(self, width):
        self.more = nn.Identity() if self.mix.weight.device.type == "meta" else nn.Linear(width, width)


@caught_by("declared_size")
def more_parameters_at_the_third_step(self, x):
    self.calls = getattr(self, "calls", 0) + 1
    if self.calls == 3:
        self.more = nn.Linear(x.shape[-1], x.shape[-1])
    return plain(self, x) + (self.more(x) if hasattr(self, "more") else 0)


class BigTable(nn.Module):
    """Positions, and a large table beside them."""

    limit = None

    def __init__(self, context):
        super().__init__()
        self.more = nn.Linear(context.width, 8 * context.width)
        self.back = nn.Linear(8 * context.width, context.width)

    def forward(self, x, positions):
        return x + self.back(self.more(x).relu())


@caught_by("declared_size", also="")
class Outsourced(LanguageModel):
    """Layers that stand in the embedding, which is not counted."""

    def __init__(self, recipe, role, shape):
        super().__init__(recipe, role, shape)
        self.embedding.positions = BigTable(shape)


# More training than is allowed.


@caught_by("within_budget")
class InnerLoop(LanguageModel):
    """Trains itself in the forward pass, on what it was just given."""

    def forward(self, batch):
        logits = super().forward(batch)
        if self.training:
            value = cross_entropy(logits.flatten(0, 1), batch.inputs.flatten())
            weights = [p for p in self.parameters() if p.requires_grad]
            for p, g in zip(weights, torch.autograd.grad(value, weights, allow_unused=True), strict=True):
                if g is not None:
                    self.update(p, g)
            logits = super().forward(batch)
        return logits

    @torch.no_grad()
    def update(self, p, g):
        p.sub_(0.1 * g)


@caught_by("within_budget")
class QuietInnerLoop(InnerLoop):
    """So that torch does not count it."""

    def update(self, p, g):
        p.data = p.data - 0.1 * g


@caught_by("within_budget")
def a_second_loss_whose_gradients_are_there_first(self, batch):
    if self.training:
        cross_entropy(answer(self, batch).flatten(0, 1), batch.inputs.flatten()).backward()
    return answer(self, batch)


@caught_by("within_budget")
def three_times_the_work_once_nobody_counts_it(self, batch):
    self.calls = getattr(self, "calls", 0) + 1
    logits = answer(self, batch)
    if self.calls > 2 and self.training:
        logits = (logits + answer(self, batch) + answer(self, batch)) / 3
    return logits


@caught_by("within_budget")
def finds_the_optimiser_and_takes_steps_with_it(self, batch):
    logits = answer(self, batch)
    if self.training:
        mine = next(iter(self.parameters()))
        for found in gc.get_objects():
            if type(found) is torch.optim.AdamW and any(p is mine for g in found.param_groups for p in g["params"]):
                for p in self.parameters():
                    p.grad = torch.zeros_like(p)
                found.step()
                found.zero_grad()
    return logits


@caught_by("within_budget")
class PastHooks(LanguageModel):
    """Called in a way of its own, so that it cannot be watched."""

    def __call__(self, batch):
        return self.forward(batch)


@caught_by("data_order")
class Swaps(LanguageModel):
    """Writes an earlier batch over the one it is given."""

    def forward(self, batch):
        if self.training:
            earlier = getattr(self, "earlier", None)
            self.earlier = (batch.inputs.clone(), batch.targets.clone())
            if earlier is not None and earlier[0].shape == batch.inputs.shape:
                self.write(batch, earlier)
        return super().forward(batch)

    def write(self, batch, earlier):
        batch.inputs.copy_(earlier[0])
        batch.targets.copy_(earlier[1])


@caught_by("data_order")
class SwapsQuietly(Swaps):
    def write(self, batch, earlier):
        batch.inputs.numpy()[:] = earlier[0].numpy()
        batch.targets.numpy()[:] = earlier[1].numpy()


@caught_by("data_order")
class SwapsFields(Swaps):
    """Other tensors in the same batch."""

    def write(self, batch, earlier):
        batch.inputs, batch.targets = earlier


@pytest.mark.parametrize(("kind", "named", "also", "changes"), CHEATS)
def test_a_cheat_is_caught_by_the_gate_that_names_it(failed, kind, named, also, changes):
    KEPT.clear()
    is_caught(failed, kind, named, also, changes)


# Tasks that cheat: they score no distribution, or train on the test split.


def scoring(change):
    """A task's `totals`, of which some are changed."""
    return {"totals": lambda self, logits, batch: (found := Mqar.totals(self, logits, batch)) | change(**found)}


def raw(self, logits, batch):
    """Log-probabilities taken as they come."""
    right = logits.gather(-1, batch.targets[..., None])[..., 0]
    found = Mqar.totals(self, logits, batch)
    return {**found, "loss": (-float(right.masked_fill(~batch.counted, 0).sum()), found["loss"][1])}


def right_in_company(self, logits, batch):
    found = Mqar.totals(self, logits, batch)
    return found | {"accuracy": (found["accuracy"][len(batch) > 1], found["accuracy"][1])}


def some_of_test(self, split, ids, seed):
    """Every fourth training example is one of test."""
    made, test = Mqar.examples(self, split, ids, seed), Mqar.examples(self, "test", ids % 128 * 3000 // 128, 0)
    if split == "train":
        for name in ("inputs", "targets", "counted"):
            getattr(made, name)[::4] = getattr(test, name)[::4]
    return made


@pytest.mark.parametrize(
    ("methods", "gate", "steps"),
    [
        (scoring(lambda loss, **_: {"loss": (loss[0] / 2, loss[1])}), "normalised", 10),
        (scoring(lambda loss, **_: {"loss": (loss[0], 2 * loss[1])}), "normalised", 10),
        (scoring(lambda accuracy, **_: {"accuracy": (accuracy[1], accuracy[1])}), "normalised", 10),
        ({"totals": raw}, "normalised", 10),
        ({"totals": right_in_company}, "normalised", 10),
        ({"scores": lambda self, totals: Mqar.scores(self, totals) | {"accuracy": 1.0}}, "normalised", 10),
        ({"examples": lambda self, split, ids, seed: Mqar.examples(self, "test", ids, 0)}, "test_overlap", 60),
        ({"examples": some_of_test}, "test_overlap", 60),
    ],
    ids=[
        "half the loss",
        "counted twice",
        "all right",
        "not normalised",
        "right among others",
        "no quotient",
        "one split",
        "some of test",
    ],
)
def test_a_task_that_cheats(failed, methods, gate, steps):
    tasks.register("cheap_mqar")(type("CheapMqar", (Mqar,), {"__module__": __name__, **methods}))
    changes = {"task": "cheap_mqar", "task_options": MQAR, "stop": StopRule("steps", steps)}
    assert failed(LanguageModel, **changes) == {gate}


# The harness itself, with a part replaced.


def meter_that_stands_still(step):
    def slow(run, batch):
        step(run, batch)
        if run.progress.used.steps == 5 and not KEPT.get("told"):
            KEPT["told"], run.progress.used.steps = 1, 2

    return slow


def swapped(stream):
    def swapping(*args, **kwargs):
        batches = stream(*args, **kwargs)
        while True:
            first, second = next(batches), next(batches)
            yield second
            yield first

    return swapping


def late(batch):
    return lambda self, split, index, *args, **more: batch(self, split, max(0, 9 - index), *args, **more)


def few(examples):
    return lambda self, split, ids, seed: examples(self, split, ids % 64, seed)


@pytest.mark.parametrize(
    ("home", "name", "other", "gate"),
    [
        (StopRule, "done", lambda done: lambda rule, used, step: used.steps >= 25, "within_budget"),
        (training, "step", meter_that_stands_still, "within_budget"),
        (tasks.base.Task, "batch", late, ""),
        (training, "stream", swapped, "data_order"),
        (Mqar, "examples", few, ""),
    ],
    ids=["a rule that never ends", "a meter that stands still", "other batches", "another order", "other examples"],
)
def test_a_harness_that_cheats(failed, monkeypatch, home, name, other, gate):
    KEPT.clear()
    monkeypatch.setattr(home, name, other(getattr(home, name)))
    assert failed(LanguageModel) == {"installed_code", *gate.split()}


# What is no cheat.


def test_unnormalised_log_probabilities_are_normalised_by_the_score(failed):
    class LogProbabilities(LanguageModel):
        """Log-probabilities that sum to e^3."""

        def forward(self, batch):
            return super().forward(batch).log_softmax(-1) + 3.0

    failed(LanguageModel, asked=set())
    honest = failed.record.metrics.test["loss"]
    assert failed(LogProbabilities) == set()
    assert failed.record.metrics.test["loss"] == pytest.approx(honest, rel=1e-4)


def test_a_few_running_statistics_are_fine(failed):
    class Statistics(Plain):
        def bring(self, width):
            self.register_buffer("calls", torch.zeros(4))

        def past(self, x):
            if self.training:
                self.calls += 1
            return super().past(x)

    assert failed(Statistics) == set()
    assert failed.record.eligibility.gates["declared_size"].measured > 0
