"""Checks of numbers: batches, repeatability, bfloat16, extreme inputs."""

import copy
import math
from typing import Any

import torch
from torch import Tensor

from zoo.check_result import CheckResult, failed, skipped, within
from zoo.checks.subject import LONG, Subject, T, distance, example, gradients, named
from zoo.contract import Batch, Mixer, Model

ROUGH = 0.05
"""What bfloat16's 8 bits of precision may change through two blocks, root mean square, relative."""
AS_ROUGH = 3.0
"""How many times more than rounded weights alone it may change, where these change much: many blocks, or experts that
are chosen by a hair's breadth, make a model sensitive that is computed as it should be."""


@torch.no_grad()
def check_batching(subject: Subject) -> CheckResult:
    """An example alone gives what it gives among others."""
    worst = 0.0
    for role in subject.stacks:
        model, batch = subject.random(role), example(role)
        together = model(batch)
        for i in range(len(batch)):
            alone = model(Batch(**{name: value[i : i + 1] for name, value in batch.arrays().items()}))
            worst = max(worst, distance(alone[0], together[i]))
    return within("batching", worst, 1e-10, "change of logits")


@torch.no_grad()
def check_determinism(subject: Subject) -> CheckResult:
    """Two evaluations are equal to the bit, whatever the global generator; hashes and random features included."""
    worst = 0.0
    for role in subject.stacks:
        model = subject.random(role)
        lengths = (T, LONG) if model.traits.stochastic else (T,)  # where one chunk holds all, hashes change nothing
        for steps in lengths:
            model, batch = subject.random(role, steps=steps), example(role, steps=steps)
            torch.manual_seed(1)
            first = model(batch)
            torch.manual_seed(2)
            worst = max(worst, distance(model(batch), first))
    return within("determinism", worst, 0.0, "change of logits")


def check_precision(subject: Subject) -> CheckResult:
    """Under bfloat16 autocast logits stay close to float32's, gradients finite, and states in the types they had.

    How far rounding carries depends on the weights drawn, so the distance is the median of three draws; where two are
    close, the third is not asked and the larger of the two stands for it.
    """
    worst = 0.0
    for role in subject.stacks:
        found: list[float] = []
        for seed in range(3):
            model, batch = subject.random(role, seed=seed, dtype=torch.float32), example(role)
            with torch.no_grad():
                exact = model(batch)
            with torch.autocast("cpu", torch.bfloat16):
                rough = model(batch)
            if not found and not all(bool(g.isfinite().all()) for g in gradients(model, rough.float().square().sum())):
                return failed("precision", f"{role}: gradients in bfloat16 are not finite")
            difference = _relative(rough.detach().float(), exact)
            if ROUGH < difference < math.inf:
                difference *= ROUGH / max(ROUGH, AS_ROUGH * _relative(_with_rounded_weights(model, batch), exact))
            found.append(difference)
            if len(found) == 2 and max(found) <= ROUGH:
                break
        worst = max(worst, sorted(found)[1])
        if role == "lm" and model.traits.resumable:
            lowered = _lowered(model, batch.inputs)
            if lowered:
                return failed("precision", f"under bfloat16 autocast the state {lowered}")
    return within("precision", worst, ROUGH, "median relative distance of bfloat16 logits from float32's")


def _relative(y: Tensor, exact: Tensor) -> float:
    """Root mean squares of the difference over the exact; infinite where it is no number."""
    found = float((y - exact).square().mean().sqrt() / exact.square().mean().sqrt())
    return math.inf if math.isnan(found) else found


@torch.no_grad()
def _with_rounded_weights(model: Model, batch: Batch) -> Tensor:
    """Logits in float32 of a model whose weights are rounded to bfloat16."""
    rounded = copy.deepcopy(model)
    for p in rounded.parameters():
        p.copy_(p.bfloat16())
    return rounded(batch)


@torch.no_grad()
def _lowered(model: Model, ids: Tensor) -> str:
    """What autocast does to the types in a state, after a prefill and after one more step; empty if nothing."""
    state = model.init_state(len(ids))
    before = {name: value.dtype for name, value in named(state)}
    for piece in ids.split([T - 1, 1], dim=1):
        with torch.autocast("cpu", torch.bfloat16):
            _, state = model.extend(piece, state)
        for name, value in named(state):
            if value.is_floating_point() and value.dtype.itemsize < 4:
                return f"holds {name} in {value.dtype}"
            if before.get(name, value.dtype) != value.dtype:
                return f"turns {name} from {before[name]} into {value.dtype}"
    return ""


def check_extremes(subject: Subject) -> CheckResult:
    """Inputs of ±80 leave outputs and gradients finite: in the stack, and in every mixer without the norm before it."""
    if not subject.backbones:
        return skipped("extremes", "plays no role")
    for role in subject.backbones:
        model = subject.random(role, dtype=torch.float32)
        length = subject.length if model.traits.length == "fixed" else T
        x = 80.0 * torch.randn(3, length, subject.width).sign()
        inner: dict[Any, tuple[str, torch.nn.Module]] = {}  # of layers alike, the first
        for name, module in model.backbone.named_modules():
            if isinstance(module, Mixer):
                inner.setdefault((type(module), *(part for part, _ in module.named_parameters())), (name, module))
        for name, module in [("the backbone", model.backbone), *inner.values()]:
            for half in (False, True):
                if not _finite(module, x, half):
                    kind = "bfloat16" if half else "float32"
                    return failed("extremes", f"{role}: {name} is not finite at ±80 in {kind}")
    return CheckResult("extremes", "passed")


def _finite(module: torch.nn.Module, x: Tensor, half: bool) -> bool:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        y = module(x)[0]
    leaves = [x, *module.parameters()]
    found = torch.autograd.grad(y.float().mean(), leaves, allow_unused=True)
    return all(bool(value.isfinite().all()) for value in (y, *found) if value is not None)
