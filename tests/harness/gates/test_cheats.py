"""Cheats, each caught by the gate that names it, and by no other where it does nothing else."""

import copy
import gc
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

import tasks
import tasks.base
import zoo
import zoo.blocks.heads
from harness.records.meters import StopRule
from harness.training import train as training
from tasks.recall.mqar import Mqar
from zoo.blocks.heads import LanguageModel
from zoo.contract import Mixer, Traits

from ..made import do
from .conftest import MQAR, spec

pytestmark = pytest.mark.slow
KEPT = {}
"""What a plug-in's module can hide."""


class Plain(Mixer):
    """A projection of the mean of what was so far."""

    traits = Traits(causal="strict", bidirectional=False, resumable=False)

    def __init__(self, context):
        super().__init__(context)
        self.mix = nn.Linear(context.width, context.width)

    def past(self, x):
        return self.mix(x).cumsum(1) / torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]

    def forward(self, x, *, mask=None, state=None):
        return self.past(x), None


class Peek(Plain):
    """A convolution padded on both sides."""

    def __init__(self, context):
        super().__init__(context)
        self.conv = nn.Conv1d(context.width, context.width, 3, padding=1)

    def past(self, x):
        return self.conv(x.mT).mT


class PeekFar(Plain):
    """Five steps ahead, at one place only."""

    def past(self, x):
        ahead = torch.zeros_like(x)
        ahead[:, 4] = x[:, 9]
        return super().past(x) + ahead


class KeyMax(Plain):
    """Performer's features, stabilised by the largest key of all steps; ε keeps that from cancelling."""

    def past(self, x):
        k = self.mix(x)
        phi = (k - k.amax((1, 2), keepdim=True)).exp() + 1e-4
        return (phi * x).cumsum(1) / phi.cumsum(1)


def cheat(name, past):
    """A mixer that is plain but for its `past`."""
    return type(name, (Plain,), {"past": past, "__module__": __name__})


# The mean over all steps, as little of it as float32 can hold.
Whisper = cheat("Whisper", lambda self, x: Plain.past(self, x) + 1e-7 * x.mean(1, keepdim=True))


class NormOverTime(Plain):
    def past(self, x):
        x = super().past(x)
        return x / x.std((1, 2), keepdim=True)


# Where the largest of all steps stands: no number of the future, but its order.
Ranked = cheat(
    "Ranked",
    lambda self, x: Plain.past(self, x) + (x.argmax(1, keepdim=True) > torch.arange(x.shape[1])[:, None]).to(x),
)


def ahead_where(name, when):
    """A mixer that sees one step ahead where `when` holds."""
    return cheat(name, lambda self, x: Plain.past(self, x.roll(-1, 1) if when(self, x) else x))


PeekInTraining = ahead_where("PeekInTraining", lambda self, x: self.training)
# Where nobody computes in float64.
PeekInSingle = ahead_where("PeekInSingle", lambda self, x: x.dtype is torch.float32 and not self.training)
# Only among as many as are scored together; nothing but their number tells.
PeekInCompany = ahead_where("PeekInCompany", lambda self, x: len(x) == 8 and not self.training)


class Actor(Plain):
    """Copies of it are honest."""

    def past(self, x):
        return super().past(x if hasattr(self, "copied") or self.training else x.roll(-1, 1))

    def __deepcopy__(self, memo):
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        twin.copied = True
        return twin


@pytest.mark.parametrize("kind", [PeekInSingle, PeekInCompany, Actor])
def test_the_future_behind_the_gates_back(failed, kind):
    assert "causal" in failed(kind)


@pytest.mark.parametrize("kind", [Peek, PeekFar, KeyMax, Whisper, NormOverTime, Ranked, PeekInTraining])
def test_the_future(failed, kind):
    found = failed(kind)
    assert "causal" in found
    assert found <= {"causal", "gradient_leak"}


# The value of the past, the gradient of the future.
StraightThrough = cheat(
    "StraightThrough", lambda self, x: Plain.past(self, x) + (x.roll(-1, 1) - x.roll(-1, 1).detach())
)
StraightThroughInTraining = cheat(
    "StraightThroughInTraining", lambda self, x: (StraightThrough if self.training else Plain).past(self, x)
)


class Borrowed(torch.autograd.Function):
    """A gradient of its own making."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad + grad.roll(1, 1)


OwnBackward = cheat("OwnBackward", lambda self, x: Plain.past(self, Borrowed.apply(x)))


@pytest.mark.parametrize("kind", [StraightThrough, StraightThroughInTraining, OwnBackward])
def test_gradients_of_the_future(failed, kind):
    assert failed(kind) == {"gradient_leak"}


# Less a thousandth of the neighbour.
Contrast = cheat("Contrast", lambda self, x: Plain.past(self, x) - 1e-3 * x.flip(0))


class Largest(Plain):
    """Against the batch's largest."""

    def past(self, x):
        x = super().past(x)
        return x / x.abs().amax((0, 2), keepdim=True)


@pytest.mark.parametrize("kind", [Contrast, Largest])
def test_the_company(failed, kind):
    assert failed(kind) == {"batch_size", "batch_neighbours"}


# Other answers in batches of 8, whoever is in them.
Crowd = cheat("Crowd", lambda self, x: Plain.past(self, x) * (1.1 if len(x) >= 8 else 1.0))


def test_the_number_of_others(failed):
    assert failed(Crowd) == {"batch_size"}


class BatchNorm(Plain):
    """Over batch and time, always by the batch's own statistics."""

    def __init__(self, context):
        super().__init__(context)
        self.norm = nn.BatchNorm1d(context.width, track_running_stats=False)

    def past(self, x):
        return self.norm(super().past(x).mT).mT


def test_batch_norm_sees_the_others_and_the_future(failed):
    assert failed(BatchNorm) == {"batch_size", "batch_neighbours", "causal", "gradient_leak"}


class Adapting(Plain):
    """Remembers, outside of parameters and buffers, what it was scored on."""

    def __init__(self, context):
        super().__init__(context)
        self.seen = [torch.zeros(context.width)]

    def past(self, x):
        y = super().past(x + self.seen[0])
        if not self.training:
            self.seen[0] = 0.9 * self.seen[0] + 0.1 * x.detach().mean((0, 1))
        return y


class AdaptingBuffer(Plain):
    def __init__(self, context):
        super().__init__(context)
        self.register_buffer("seen", torch.zeros(context.width))

    def past(self, x):
        y = super().past(x + self.seen)
        if not self.training:
            self.seen.lerp_(x.detach().mean((0, 1)), 0.1)
        return y


class Dynamic(Plain):
    """Dynamic evaluation: a step of its own on what it is scored on."""

    def past(self, x):
        y = super().past(x)
        if not self.training:
            self.mix.weight.data.mul_(0.999)
        return y


@pytest.mark.parametrize("kind", [Adapting, AdaptingBuffer, Dynamic])
def test_learning_while_it_is_scored(failed, kind):
    found = failed(kind)
    assert {"evaluation_frozen", "repeatable"} <= found


def play(monkeypatch, kind):
    """A language model of another class, in a plain recipe."""
    monkeypatch.setitem(zoo.blocks.heads.MODELS, "lm", kind)
    zoo.register("plain")(Plain)
    return "plain"


class ReadsTargets(LanguageModel):
    def forward(self, batch):
        return super().forward(batch) + 5.0 * one_hot(batch.targets, self.shape.outputs)


class ReadsTheCallersTargets(LanguageModel):
    """Wherever the scoring keeps them."""

    def forward(self, batch):
        frame, logits = sys._getframe(), super().forward(batch)
        while frame.f_back is not None and not self.training:
            frame = frame.f_back
            there = frame.f_locals.get("there")
            if there is not None and there.targets.shape == logits.shape[:2]:
                return logits + 5.0 * one_hot(there.targets, self.shape.outputs)
        return logits


@pytest.mark.parametrize("kind", [ReadsTargets, ReadsTheCallersTargets])
def test_the_answers_themselves(failed, monkeypatch, kind):
    assert "answers_unseen" in failed(play(monkeypatch, kind))


class Cheap(torch.Tensor):
    """Every loss of it is half as large."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        found = super().__torch_function__(func, types, args, kwargs or {})
        return found / 2 if func is torch.nn.functional.cross_entropy else found


class CheapLogits(LanguageModel):
    def forward(self, batch):
        return super().forward(batch).as_subclass(Cheap)


class CheapScores(LanguageModel):
    """Only where the record's scores are made: in batches larger than a gate's."""

    def forward(self, batch):
        logits = super().forward(batch)
        return logits if self.training or len(batch) < 8 else logits.as_subclass(Cheap)


class Undecided(LanguageModel):
    """Not a number where it is not sure."""

    def forward(self, batch):
        logits = super().forward(batch)
        return logits if self.training else logits.masked_fill(logits < logits.mean(), float("nan"))


class MoreClasses(LanguageModel):
    def forward(self, batch):
        logits = super().forward(batch)
        return torch.cat([logits, logits[..., :1]], -1)


@pytest.mark.parametrize("kind", [CheapLogits, CheapScores, Undecided, MoreClasses])
def test_no_distribution(failed, monkeypatch, kind):
    assert "normalised" in failed(play(monkeypatch, kind))


class LogProbabilities(LanguageModel):
    """Log-probabilities that sum to e^3."""

    def forward(self, batch):
        return super().forward(batch).log_softmax(-1) + 3.0


def test_unnormalised_log_probabilities_are_normalised_by_the_score(failed, monkeypatch, tmp_path):
    name = play(monkeypatch, LanguageModel)
    honest = do(spec(name), tmp_path / "a").metrics
    monkeypatch.setitem(zoo.blocks.heads.MODELS, "lm", LogProbabilities)
    shifted = do(spec(name), tmp_path / "b").metrics
    assert shifted.test["loss"] == pytest.approx(honest.test["loss"], rel=1e-4)
    assert failed(name) == set()


def task_of(name, **methods):
    """`mqar` with some methods of its own."""
    kind = type(name, (Mqar,), {"__module__": __name__, **methods})
    tasks.register(name)(kind)
    zoo.register("plain")(Plain)
    return "plain"


def _halved(self, logits, batch):
    return {
        name: (value / 2 if name == "loss" else value, w)
        for name, (value, w) in Mqar.totals(self, logits, batch).items()
    }


def _twice_counted(self, logits, batch):
    return {name: (v, 2 * w if name == "loss" else w) for name, (v, w) in Mqar.totals(self, logits, batch).items()}


def _all_right(self, logits, batch):
    found = Mqar.totals(self, logits, batch)
    return {**found, "accuracy": (found["accuracy"][1], found["accuracy"][1])}


def _raw(self, logits, batch):
    """Log-probabilities taken as they come."""
    right = logits.gather(-1, batch.targets[..., None])[..., 0]
    found = Mqar.totals(self, logits, batch)
    return {**found, "loss": (-float(right.masked_fill(~batch.counted, 0).sum()), found["loss"][1])}


@pytest.mark.parametrize("totals", [_halved, _twice_counted, _all_right, _raw])
def test_a_task_that_scores_no_distribution(failed, totals):
    name = task_of("cheap_mqar", totals=totals)
    assert failed(name, task="cheap_mqar", task_options=MQAR) == {"normalised"}


class Table(LanguageModel):
    """Looks the test split up by its inputs."""

    when = staticmethod(lambda model: True)

    def __init__(self, recipe, role, shape):
        super().__init__(recipe, role, shape)
        known = tasks.build("mqar", **MQAR).examples("test", np.arange(3000), 0)
        self.known = {row.tobytes(): answer for row, answer in zip(known.inputs, known.targets, strict=True)}
        self.start = float(self.head.weight.detach().abs().sum()) if self.head.weight.device.type != "meta" else 0.0
        self.calls = 0

    def forward(self, batch):
        logits = super().forward(batch)
        self.calls += 1
        if not self.when(self):
            return logits
        rows = [self.known.get(row.numpy().tobytes()) for row in batch.inputs]
        extra = [torch.zeros(logits.shape[1:]) if a is None else 8.0 * one_hot(torch.from_numpy(a), 16) for a in rows]
        return logits + torch.stack(extra).to(logits)


class TableLater(Table):
    when = staticmethod(lambda model: model.calls > 12)


class TableTrained(Table):
    """Only where the weights are no longer those of the start."""

    when = staticmethod(lambda model: abs(float(model.head.weight.abs().sum()) - model.start) > 1e-3 * model.start)


class TablePrefix(Table):
    """By the first ten tokens, so that the future does not matter; for a third of the examples."""

    def forward(self, batch):
        logits = LanguageModel.forward(self, batch)
        if not hasattr(self, "prefixes"):
            self.prefixes = {k[:80]: v for k, v in self.known.items() if k[0] % 3}
        rows = [self.prefixes.get(row[:10].numpy().tobytes()) for row in batch.inputs]
        extra = [torch.zeros(logits.shape[1:]) if a is None else 8.0 * one_hot(torch.from_numpy(a), 16) for a in rows]
        extra = torch.stack(extra).to(logits)
        extra[:, :9] = 0
        return logits + extra


@pytest.mark.parametrize("kind", [Table, TableLater, TablePrefix])
def test_a_table_of_the_test_split(failed, monkeypatch, kind):
    assert {"untrained", "held_out_gap"} <= failed(play(monkeypatch, kind))


class Learned(LanguageModel):
    """Comes trained, by the seeds that boards use."""

    def __init__(self, recipe, role, shape):
        super().__init__(recipe, role, shape)
        task = tasks.build("mqar", **MQAR)
        if self.head.weight.device.type == "meta" or torch.initial_seed() > 100:
            return
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.02)
        for index in range(60):
            batch = task.batch("test", index, size=32)
            with torch.enable_grad():
                task.loss(self(batch), batch).backward()
            optimizer.step()
            optimizer.zero_grad()


def test_training_before_training(failed, monkeypatch):
    assert "untrained" in failed(play(monkeypatch, Learned), options={"depth": 2, "width": 32})


def test_a_table_that_waits_for_training(failed, monkeypatch):
    assert "held_out_gap" in failed(play(monkeypatch, TableTrained))


def _one_split(self, split, ids, seed):
    return Mqar.examples(self, "test", ids, 0)


def _some_of_test(self, split, ids, seed):
    """Every fourth training example is one of test."""
    made, test = Mqar.examples(self, split, ids, seed), Mqar.examples(self, "test", ids % 128 * 3000 // 128, 0)
    if split == "train":
        for name in ("inputs", "targets", "counted"):
            getattr(made, name)[::4] = getattr(test, name)[::4]
    return made


@pytest.mark.parametrize("examples", [_one_split, _some_of_test])
def test_training_on_the_test_split(failed, examples):
    name = task_of("leaky_mqar", examples=examples)
    found = failed(name, task="leaky_mqar", task_options=MQAR, stop=StopRule("steps", 60))
    assert found == {"test_overlap"}


class Unlisted(Plain):
    """A layer in a list that is no ModuleList, trained by an optimiser of its own."""

    def __init__(self, context):
        super().__init__(context)
        self.more = [nn.Linear(context.width, context.width)]

    def past(self, x):
        return super().past(x) + self.more[0](x)


class SelfTaught(Plain):
    """A buffer that it trains by itself."""

    def __init__(self, context):
        super().__init__(context)
        self.register_buffer("more", torch.randn(context.width, context.width) / 4)

    def past(self, x):
        y = super().past(x) + x @ self.more
        if self.training:
            self.more = self.more - 0.01 * (x.detach().flatten(0, 1).T @ y.detach().flatten(0, 1)) / len(x)
        return y


class Attribute(SelfTaught):
    """No buffer, an attribute."""

    def __init__(self, context):
        Plain.__init__(self, context)
        self.more = torch.randn(context.width, context.width) / 4


class InTheModule(Plain):
    """In a global of the plug-in."""

    def past(self, x):
        W = KEPT.setdefault("W", torch.eye(x.shape[-1]))
        if self.training:
            KEPT["W"] = W + 0.01 * x.detach().flatten(0, 1).T @ x.detach().flatten(0, 1) / x[..., 0].numel()
        return super().past(x) + x @ W.detach()


class Closure(Plain):
    def __init__(self, context):
        super().__init__(context)
        W = torch.randn(context.width, context.width) / 4

        def more(x, train):
            if train:
                W.data += 0.01 * x.detach().flatten(0, 1).T @ x.detach().flatten(0, 1) / x[..., 0].numel()
            return x @ W

        self.more = more

    def past(self, x):
        return super().past(x) + self.more(x, self.training)


class Frozen(Plain):
    """Not trainable where it is counted, changed where it is trained."""

    def __init__(self, context):
        super().__init__(context)
        self.more = nn.Parameter(torch.randn(context.width, context.width) / 4, requires_grad=False)

    def past(self, x):
        if self.training:
            self.more.data.mul_(0.99)
        return super().past(x) + x @ self.more


class SmallOnPaper(Plain):
    """Fewer parameters on the meta device, where sizes are solved."""

    def __init__(self, context):
        super().__init__(context)
        on_paper = self.mix.weight.device.type == "meta"
        self.more = nn.Identity() if on_paper else nn.Linear(context.width, context.width)

    def past(self, x):
        return super().past(x) + self.more(x)


class Growing(Plain):
    """More parameters at the third step."""

    def past(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 3:
            self.more = nn.Linear(x.shape[-1], x.shape[-1])
        return super().past(x) + (self.more(x) if hasattr(self, "more") else 0)


@pytest.mark.parametrize("kind", [Unlisted, SelfTaught, Attribute, InTheModule, Closure, Frozen, SmallOnPaper, Growing])
def test_more_is_trained_than_is_counted(failed, kind):
    KEPT.clear()
    assert "declared_size" in failed(kind)


class BigTable(nn.Module):
    """Positions, and a large table beside them."""

    limit = None

    def __init__(self, context):
        super().__init__()
        self.more = nn.Linear(context.width, 8 * context.width)
        self.back = nn.Linear(8 * context.width, context.width)

    def forward(self, x, positions):
        return x + self.back(self.more(x).relu())


class Outsourced(LanguageModel):
    """Layers that stand in the embedding, which is not counted."""

    def __init__(self, recipe, role, shape):
        super().__init__(recipe, role, shape)
        self.embedding.positions = BigTable(shape)


def test_layers_outside_of_what_is_counted(failed, monkeypatch):
    assert failed(play(monkeypatch, Outsourced)) == {"declared_size"}


class Statistics(Plain):
    """A batch norm whose running means count for little; over the features of one step only, so that it is causal."""

    def __init__(self, context):
        super().__init__(context)
        self.register_buffer("calls", torch.zeros(4))

    def past(self, x):
        if self.training:
            self.calls += 1
        return super().past(x)


def test_a_few_running_statistics_are_fine(failed):
    assert failed(Statistics) == set()
    assert failed.gates["declared_size"].measured > 0


class InnerLoop(LanguageModel):
    """Trains itself in the forward pass, on what it was just given."""

    quiet = False

    def forward(self, batch):
        logits = super().forward(batch)
        if self.training and not getattr(self, "busy", False):
            value = nn.functional.cross_entropy(logits.flatten(0, 1), batch.inputs.flatten())
            weights = [p for p in self.parameters() if p.requires_grad]
            for p, g in zip(weights, torch.autograd.grad(value, weights, allow_unused=True), strict=True):
                if g is not None and not self.quiet:
                    with torch.no_grad():
                        p.sub_(0.1 * g)
                elif g is not None:
                    p.data = p.data - 0.1 * g
            logits = super().forward(batch)
        return logits


class QuietInnerLoop(InnerLoop):
    """So that torch does not count it."""

    quiet = True


class MoreBackward(LanguageModel):
    """A second loss, whose gradients are there when the first comes."""

    def forward(self, batch):
        if self.training:
            extra = super().forward(batch)
            nn.functional.cross_entropy(extra.flatten(0, 1), batch.inputs.flatten()).backward()
        return super().forward(batch)


class HarderLater(LanguageModel):
    """Three times the work, once nobody counts it."""

    calls = 0

    def forward(self, batch):
        self.calls += 1
        logits = super().forward(batch)
        if self.calls > 2 and self.training:
            logits = (logits + super().forward(batch) + super().forward(batch)) / 3
        return logits


class OwnSteps(LanguageModel):
    """Finds the optimiser and takes steps with it."""

    def forward(self, batch):
        logits = super().forward(batch)
        if self.training:
            mine = next(iter(self.parameters()))
            for found in gc.get_objects():
                if type(found) is torch.optim.AdamW and any(p is mine for g in found.param_groups for p in g["params"]):
                    for p in self.parameters():
                        p.grad = torch.zeros_like(p)
                    found.step()
                    found.zero_grad()
        return logits


@pytest.mark.parametrize("kind", [InnerLoop, QuietInnerLoop, MoreBackward, HarderLater, OwnSteps])
def test_more_training_than_is_allowed(failed, monkeypatch, kind):
    assert "within_budget" in failed(play(monkeypatch, kind))


def test_training_on_while_it_is_scored(failed, monkeypatch):
    class Evenings(LanguageModel):
        def forward(self, batch):
            if not self.training:
                self.head.weight.data = self.head.weight.data * 0.999
            return super().forward(batch)

    assert "evaluation_frozen" in failed(play(monkeypatch, Evenings))


def test_a_rule_that_never_ends(failed, monkeypatch):
    zoo.register("plain")(Plain)
    monkeypatch.setattr(StopRule, "done", lambda rule, used, step: used.steps >= 25)
    assert "within_budget" in failed("plain")


def test_a_meter_that_stands_still(failed, monkeypatch):
    honest = training.step

    def slow(run, batch):
        honest(run, batch)
        if run.progress.used.steps == 5 and not KEPT.get("told"):
            KEPT["told"], run.progress.used.steps = 1, 2

    KEPT.clear()
    zoo.register("plain")(Plain)
    monkeypatch.setattr(training, "step", slow)
    assert "within_budget" in failed("plain")


def _easy_first(honest):
    return lambda self, split, index, seed=0, *, size=32: honest(self, split, max(0, 9 - index), seed, size=size)


def test_other_batches(failed, monkeypatch):
    zoo.register("plain")(Plain)
    monkeypatch.setattr(tasks.base.Task, "batch", _easy_first(tasks.base.Task.batch))
    assert failed("plain") == {"data_order"}


def test_another_order_of_the_stream(failed, monkeypatch):
    zoo.register("plain")(Plain)
    honest = training.stream

    def swapped(*args, **kwargs):
        batches = honest(*args, **kwargs)
        while True:
            first, second = next(batches), next(batches)
            yield second
            yield first

    monkeypatch.setattr(training, "stream", swapped)
    assert failed("plain") == {"data_order"}


def test_other_examples(failed, monkeypatch):
    zoo.register("plain")(Plain)
    honest = Mqar.examples
    monkeypatch.setattr(Mqar, "examples", lambda self, split, ids, seed: honest(self, split, ids % 64, seed))
    assert failed("plain") == {"data_order"}


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


class SwapsQuietly(Swaps):
    def write(self, batch, earlier):
        batch.inputs.numpy()[:] = earlier[0].numpy()
        batch.targets.numpy()[:] = earlier[1].numpy()


class SwapsFields(Swaps):
    """Other tensors in the same batch."""

    def write(self, batch, earlier):
        batch.inputs, batch.targets = earlier


@pytest.mark.parametrize("kind", [Swaps, SwapsQuietly, SwapsFields])
def test_a_batch_that_is_written_over(failed, monkeypatch, kind):
    assert "data_order" in failed(play(monkeypatch, kind))


class PastHooks(LanguageModel):
    """Called in a way of its own."""

    def __call__(self, batch):
        return self.forward(batch)


def test_a_model_that_cannot_be_watched(failed, monkeypatch):
    assert "within_budget" in failed(play(monkeypatch, PastHooks))


def test_an_honest_model_passes_every_gate(failed):
    assert failed(Plain) == set()
    assert len(failed.gates) == 15


class RunningNorm(Plain):
    """A batch norm as it is usual, which is scored by its running means."""

    def __init__(self, context):
        super().__init__(context)
        self.norm = nn.BatchNorm1d(context.width)

    def past(self, x):
        return self.norm(super().past(x).mT).mT


def test_running_statistics_pass_where_nothing_is_causal(failed):
    """In a causal model they see the future while it is trained, and the gates of causality say so."""
    found = failed(RunningNorm)
    assert found == {"causal", "gradient_leak"}
    assert failed.gates["declared_size"].passed
