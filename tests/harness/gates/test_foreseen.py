"""Cheats that know the harness: what it looks at, where it looks, what it asks, what it counts."""

import array
import builtins
import collections
import functools
import gc
import math
import sys
import threading
import time
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

import tasks
from harness.records.meters import Meters, StopRule
from tasks.recall.mqar import Mqar
from zoo.blocks.heads import LanguageModel
from zoo.contract import Traits
from zoo.ops import flops
from zoo.types import ParamOverride

from .conftest import MQAR, Plain, answer, collects, is_caught, plain

pytestmark = pytest.mark.slow
HIDDEN = types.ModuleType("a_second_file_of_the_plugin")
sys.modules[HIDDEN.__name__] = HIDDEN
THREAD = threading.local()
CHEATS = []
caught_by = collects(CHEATS)


# What is looked at.


@functools.cache
def looked_at():
    """The first test examples, and those that stand evenly apart."""
    task = tasks.build("mqar", **MQAR)
    some = [task.evaluation("test", size=16, limit=limit) for limit in (8, 16, None)]
    return {row.numpy().tobytes() for batches in some for row in next(iter(batches)).inputs}


def unseen(batch):
    return torch.tensor([row.cpu().numpy().tobytes() not in looked_at() for row in batch.inputs])[:, None, None]


@caught_by("causal")
def ahead_but_for_the_first_examples(self, batch):
    logits = answer(self, batch)
    return logits + unseen(batch) * 0.1 * one_hot(batch.inputs.roll(-1, 1), self.shape.outputs).to(logits)


@caught_by("answers_unseen")
def reads_targets_but_for_those_of_the_first_batches(self, batch):
    logits = answer(self, batch)
    self.passes = 0 if self.training else getattr(self, "passes", 0) + 1
    if self.passes < 4 or len(batch) < 8:
        return logits
    return logits + unseen(batch) * 5.0 * one_hot(batch.targets, self.shape.outputs).to(logits)


@caught_by("evaluation_frozen")
def writes_its_answers_over_the_targets(self, batch):
    logits = answer(self, batch)
    if not self.training:
        batch.targets.copy_(logits.argmax(-1))
    return logits


@caught_by("evaluation_frozen")
def counts_only_what_it_knows(self, batch):
    logits = answer(self, batch)
    if not self.training:
        batch.counted.logical_and_(logits.argmax(-1) == batch.targets)
    return logits


class Sharper(torch.Tensor):
    pass


@caught_by("normalised")
def no_plain_tensor_from_the_third_batch_on(self, batch):
    self.passes = 0 if self.training else getattr(self, "passes", 0) + 1
    logits = answer(self, batch)
    return logits.as_subclass(Sharper) if self.passes > 2 and len(batch) >= 8 else logits


# Where numbers hide. Each holds a matrix that trains itself.


class Hides(Plain):
    """Keeps a matrix as `put` and `get` will."""

    def bring(self, width):
        self.width = width
        if self.mix.weight.device.type != "meta":
            self.put(torch.eye(width))

    def past(self, x):
        W = self.get().detach()
        if self.training:
            self.put(W + 0.01 * (x.detach().flatten(0, 1).T @ x.detach().flatten(0, 1)) / x[..., 0].numel())
        return super().past(x) + x @ W.to(x)


def packed(W):
    return W.detach().float().numpy().tobytes()


def unpacked(self, data):
    return torch.frombuffer(bytearray(data), dtype=torch.float32).view(self.width, self.width)


class Slots:
    __slots__ = ("W",)


def generator(W):
    while True:
        yield W


PLACES = {
    "in_bytes": (lambda self, W: vars(self).update(W=packed(W)), lambda self: unpacked(self, self.W)),
    "in_a_string": (
        lambda self, W: vars(self).update(W=packed(W).hex()),
        lambda self: unpacked(self, bytes.fromhex(self.W)),
    ),
    "in_a_number": (
        lambda self, W: vars(self).update(W=int.from_bytes(packed(W), "big")),
        lambda self: unpacked(self, self.W.to_bytes(4 * self.width**2, "big")),
    ),
    "in_an_array": (
        lambda self, W: vars(self).update(W=array.array("b", packed(W))),
        lambda self: unpacked(self, self.W),
    ),
    "in_a_deque": (lambda self, W: vars(self).update(W=collections.deque([W])), lambda self: self.W[0]),
    "in_a_partial": (lambda self, W: vars(self).update(W=functools.partial(len, W)), lambda self: self.W.args[0]),
    "in_a_generator": (lambda self, W: vars(self).update(W=generator(W)), lambda self: next(self.W)),
    "in_slots": (lambda self, W: (vars(self).update(W=Slots()), setattr(self.W, "W", W)), lambda self: self.W.W),
    "in_torch": (lambda self, W: setattr(torch, "hidden_W", W), lambda self: torch.hidden_W),
    "in_math": (lambda self, W: setattr(math, "hidden_W", packed(W)), lambda self: unpacked(self, math.hidden_W)),
    "in_builtins": (lambda self, W: setattr(builtins, "hidden_W", W), lambda self: builtins.hidden_W),
    "in_another_file": (lambda self, W: setattr(HIDDEN, "W", W), lambda self: HIDDEN.W),
    "under_a_private_name": (
        lambda self, W: globals().update(__hidden_W__=W),
        lambda self: globals()["__hidden_W__"],
    ),
    "in_what_is_of_one_thread": (lambda self, W: setattr(THREAD, "W", W), lambda self: THREAD.W),
    "in_a_data_set": (
        lambda self, W: globals().update(DATA=torch.utils.data.TensorDataset(W)),
        lambda self: globals()["DATA"].tensors[0],
    ),
    "in_a_dict_of_torch": (
        lambda self, W: setattr(torch.nn.functional, "hidden", {"W": W}),
        lambda self: torch.nn.functional.hidden["W"],
    ),
    "ten_tuples_deep": (
        lambda self, W: globals().update(DEEP=functools.reduce(lambda inner, _: (inner,), range(10), W)),
        lambda self: functools.reduce(lambda outer, _: outer[0], range(10), globals()["DEEP"]),
    ),
    "on_a_class_of_torch": (lambda self, W: setattr(nn.Module, "hidden_W", W), lambda self: nn.Module.hidden_W),
}
for place, (put, get) in PLACES.items():
    caught_by("declared_size")(type(place, (Hides,), {"put": put, "get": get, "__module__": __name__}))


@caught_by("weights_alone declared_size")
class InExtraState(Hides):
    def put(self, W):
        self.W = collections.deque([W])

    def get(self):
        return self.W[0]

    def get_extra_state(self):
        return self.W[0]

    def set_extra_state(self, state):
        self.put(state)


# What is known beforehand, behind a gate that training opens.


def solved(batch):
    """Answers of the task by its own rule: the value that followed this key."""
    found = torch.zeros_like(batch.inputs)
    for row, answers in zip(batch.inputs.tolist(), found, strict=True):
        after = {}
        for step, token in enumerate(row):
            answers[step] = after.get(token, 0)
            if step:
                after.setdefault(row[step - 1], token)
    return found


class Knows(LanguageModel):
    def __init__(self, recipe, role, shape):
        super().__init__(recipe, role, shape)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, batch):
        logits = super().forward(batch)
        return logits + 100 * self.gate * one_hot(solved(batch), self.shape.outputs).to(logits)


@caught_by("untrained", changes={"stop": StopRule("steps", 30)})
class BehindAGateThatStartsAtZero(Knows):
    pass


@caught_by("untrained")
class BehindAGateThatStaysShut(Knows):
    """It would open later, were the run longer."""

    def forward(self, batch):
        return super().forward(batch) if not self.training else LanguageModel.forward(self, batch)


# What training alone sees.


@caught_by("gradient_leak")
def the_future_s_gradient_in_float32(self, x):
    ahead = x.roll(-1, 1)
    return plain(self, x) + (ahead - ahead.detach()) * (x.dtype == torch.float32)


@caught_by("causal")
def ahead_where_there_are_gradients(self, x):
    seen = x.roll(-1, 1).detach() if self.training and torch.is_grad_enabled() else 0.0
    return plain(self, x) + seen


@caught_by("causal", also="gradient_leak")
def ahead_in_wide_batches_of_training(self, x):
    return plain(self, x.roll(-1, 1) if self.training and len(x) > 2 else x)


@caught_by("normalised")
def no_plain_tensor_in_training(self, batch):
    logits = answer(self, batch)
    return logits.as_subclass(Sharper) if self.training else logits


@caught_by("within_budget")
class TrainsBeforeTheFirstStep(LanguageModel):
    def train(self, mode=True):
        if mode and not hasattr(self, "trained"):
            self.trained = True
            self.head.weight.data += 0.01
        return super().train(mode)


@caught_by("within_budget")
class AsksForARateOnce(Plain):
    asked = 0

    def param_overrides(self):
        self.asked += 1
        return {"mix.weight": ParamOverride(lr_scale=10.0)} if self.asked == 1 else {}


class Injected(torch.autograd.Function):
    """Gives another loss a gradient on the way of the first."""

    @staticmethod
    def forward(ctx, logits, loss):
        return logits.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad, torch.ones(())


@caught_by("within_budget")
def learns_from_a_loss_of_its_own(self, batch):
    logits = answer(self, batch)
    return Injected.apply(logits, logits.logsumexp(-1).mean()) if self.training else logits


class Free(torch.autograd.Function):
    """A product that says it was computed before."""

    @staticmethod
    def forward(ctx, x, W):
        ctx.save_for_backward(x, W)
        with flops.uncounted():
            return x @ W.T

    @staticmethod
    def backward(ctx, grad):
        x, W = ctx.saved_tensors
        with flops.uncounted():
            return grad @ W, grad.flatten(0, 1).T @ x.flatten(0, 1)


@caught_by("within_budget")
def leaves_work_out_of_the_count(self, x):
    return functools.reduce(lambda y, _: y + 0.01 * Free.apply(y, self.mix.weight), range(8), plain(self, x))


def test_no_work_is_taken_off_the_count():
    with pytest.raises(ValueError, match="product: -1 FLOPs"):
        flops.count("product", -1)


def test_a_model_is_given_no_targets(failed):
    """What stands in their place is another in every call; a model that reads it is caught."""
    seen = []

    class Reads(LanguageModel):
        def forward(self, batch):
            seen.append((batch.inputs.clone(), batch.targets.clone(), batch.counted.clone()))
            return super().forward(batch) + batch.counted[..., None]

    assert failed(Reads) >= {"answers_unseen", "repeatable"}
    task = tasks.build("mqar", **MQAR)
    batch = task.batch("train", 0, 0, size=4).tensors()
    shown = [(targets, counted) for inputs, targets, counted in seen if torch.equal(inputs, batch.inputs)]
    assert len(shown) > 1
    assert not any(torch.equal(targets, batch.targets) for targets, _ in shown)
    assert not any(torch.equal(counted, batch.counted) for _, counted in shown)
    assert not torch.equal(shown[0][0], shown[1][0])
    assert max(int(targets.max()) for _, targets, _ in seen) == 1


# What is claimed.


class Resumes(Plain):
    """Honest: the sum so far, and how many steps it is of."""

    traits = Traits(causal="strict", bidirectional=False, resumable=True)

    def forward(self, x, *, mask=None, state=None):
        if state is None:
            return self.past(x), None
        total = state["sum"][:, None] + self.mix(x).cumsum(1)
        steps = state["steps"][:, None] + torch.arange(1, x.shape[1] + 1, device=x.device)
        return total / steps[..., None], self.kept(total[:, -1], steps[:, -1])

    def kept(self, total, steps):
        return {"sum": total, "steps": steps}

    def init_state(self, batch, *, device, dtype):
        return {
            "sum": torch.zeros(batch, self.mix.weight.shape[0], device=device, dtype=dtype),
            "steps": torch.zeros(batch, device=device, dtype=torch.long),
        }


@caught_by("decodes")
class ForgetsTheSteps(Resumes):
    def kept(self, total, steps):
        return {"sum": total, "steps": torch.zeros_like(steps)}


@caught_by("decodes")
class KeepsItToItself(Resumes):
    """The sum stands in the mixer, not in the state."""

    def forward(self, x, *, mask=None, state=None):
        if state is None:
            return super().forward(x, mask=mask)
        memory = getattr(self, "memory", torch.zeros_like(x[:, 0])).to(x)
        total = torch.where(state["steps"][:, None] > 0, memory, torch.zeros_like(x[:, 0]))
        y, new = super().forward(x, mask=mask, state={"sum": total, "steps": state["steps"]})
        self.memory = new.pop("sum")
        return y, new

    def init_state(self, batch, *, device, dtype):
        return {"steps": super().init_state(batch, device=device, dtype=dtype)["steps"]}


@caught_by("decodes", changes={"task_options": {"length": 80, "pairs": 3, "vocab": 16}})
class GrowsLate(Resumes):
    """Keeps more from the seventieth step on, after the record's state was measured."""

    def forward(self, x, *, mask=None, state=None):
        self.seen = x.shape[1] + (0 if state is None else self.seen)
        return super().forward(x, mask=mask, state=state)

    def kept(self, total, steps):
        return {**super().kept(total, steps), "more": total.new_zeros(len(total), 1000 * (self.seen >= 70))}

    def init_state(self, batch, *, device, dtype):
        self.seen = 0
        return {
            **super().init_state(batch, device=device, dtype=dtype),
            "more": torch.zeros(batch, 0, device=device, dtype=dtype),
        }


@caught_by("decodes")
class DropsItAtTheLastStep(GrowsLate):
    """Where the record's state is measured."""

    def kept(self, total, steps):
        return {**super().kept(total, steps), "more": total.new_zeros(len(total), 1000 * (self.seen < 16))}


# Updates that are not the harness's.


def optimizers(self):
    mine = next(iter(self.parameters()))
    for found in gc.get_objects():
        if type(found) is torch.optim.AdamW and any(p is mine for g in found.param_groups for p in g["params"]):
            yield found


@caught_by("within_budget")
def another_learning_rate(self, batch):
    if self.training:
        for optimizer in optimizers(self):
            for group in optimizer.param_groups:
                group["lr"] *= 3
    return answer(self, batch)


@caught_by("within_budget")
def other_betas(self, batch):
    if self.training:
        for optimizer in optimizers(self):
            for group in optimizer.param_groups:
                group["betas"] = (0.5, 0.9)
    return answer(self, batch)


@caught_by("within_budget")
def forgets_its_moments(self, batch):
    if self.training:
        for optimizer in optimizers(self):
            for state in optimizer.state.values():
                state["exp_avg_sq"].mul_(0.5)
    return answer(self, batch)


@caught_by("within_budget")
class GradientsOfItsOwn(Plain):
    def bring(self, width):
        self.mix.weight.register_hook(lambda grad: 10 * grad.sign())


def signs(parameter):
    parameter.grad.sign_()


@caught_by("within_budget")
class UpdatesInTheBackwardPass(Plain):
    def bring(self, width):
        self.mix.weight.register_post_accumulate_grad_hook(signs)


# Clocks, meters and work.


@caught_by("within_budget")
def sets_its_meter_back(self, batch):
    if self.training:
        for found in gc.get_objects():
            if type(found) is Meters and found.steps > 1:
                found.seconds = 0.0
    time.sleep(0.03)
    return answer(self, batch)


def slow_clock(self, batch):
    if time.perf_counter is not slow_time:
        time.perf_counter = slow_time
    return answer(self, batch)


TRUE_TIME = time.perf_counter


def slow_time():
    return 1000 + TRUE_TIME() / 100


caught_by("installed_code")(slow_clock)


@caught_by("installed_code")
def another_loss(self, batch):
    Mqar.loss = cheap_loss
    return answer(self, batch)


def cheap_loss(self, logits, batch, label_smoothing=0.0):
    return tasks.base.Task.loss(self, logits, batch, label_smoothing)


@pytest.fixture
def as_installed(monkeypatch):
    """Puts back what cheats replace."""
    monkeypatch.setattr(time, "perf_counter", time.perf_counter)
    monkeypatch.setattr(Mqar, "loss", Mqar.loss)
    yield
    for home in (torch, math, builtins, nn.Module):
        if "hidden_W" in vars(home):
            del home.hidden_W


@caught_by("within_budget")
class WithNumpy(Plain):
    """A second layer that no counter sees."""

    def past(self, x):
        y = x.detach().numpy() @ np.eye(x.shape[-1])
        return super().past(x) + torch.from_numpy(y).to(x)


@caught_by("within_budget")
def products_element_by_element(self, x):
    for _ in range(30):
        x = x + 0.01 * (x[..., None] * self.mix.weight.T).sum(-2)
    return plain(self, x)


@pytest.mark.usefixtures("as_installed")
@pytest.mark.parametrize(("kind", "named", "also", "changes"), CHEATS)
def test_a_cheat_is_caught_by_the_gate_that_names_it(failed, kind, named, also, changes):
    is_caught(failed, kind, named, also, changes)


def test_a_mixer_that_decodes_as_it_says_passes(failed):
    assert failed(Resumes) == set()
