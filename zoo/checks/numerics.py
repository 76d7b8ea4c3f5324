"""Checks of numbers: batches, repeatability, bfloat16, extreme inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.checks.subject import Outcome, Subject, T, distance, example, skipped, within
from zoo.contract import Batch, Mixer

ROUGH = 0.05
"""What bfloat16's 8 bits of precision may change through two blocks, root mean square, relative."""


def check_batching(subject: Subject) -> Outcome:
    """An example alone gives what it gives among others."""
    worst = 0.0
    for role in subject.roles:
        model, batch = subject.random(role), example(role)
        together = model(batch)
        for i in range(len(batch)):
            alone = model(Batch(**{name: value[i : i + 1] for name, value in batch.arrays().items()}))
            worst = max(worst, distance(alone[0], together[i]))
    return within("batching", worst, 1e-10, "change of logits")


def check_determinism(subject: Subject) -> Outcome:
    """Two evaluations are equal to the bit, whatever the global generator; hashes and random features included."""
    worst = 0.0
    for role in subject.roles:
        model, batch = subject.random(role), example(role)
        torch.manual_seed(1)
        first = model(batch)
        torch.manual_seed(2)
        worst = max(worst, distance(model(batch), first))
    return within("determinism", worst, 0.0, "change of logits")


def check_precision(subject: Subject) -> Outcome:
    """Under bfloat16 autocast the logits stay close to float32's, and gradients finite."""
    worst = 0.0
    for role in subject.roles:
        model, batch = subject.random(role).float(), example(role)
        with torch.no_grad():
            exact = model(batch)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(batch)
        rough.float().square().sum().backward()
        if not all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None):
            return Outcome("precision", "failed", note=f"{role}: gradients in bfloat16 are not finite")
        difference = rough.detach().float() - exact
        worst = max(worst, float(difference.square().mean().sqrt() / exact.square().mean().sqrt()))
    return within("precision", worst, ROUGH, "relative distance of bfloat16 logits from float32's")


def check_extremes(subject: Subject) -> Outcome:
    """Inputs of ±80 leave outputs and gradients finite: in the stack, and in every mixer without the norm before it."""
    if not subject.backbones:
        return skipped("extremes", "plays no role")
    for role in subject.backbones:
        model = subject.random(role).float()
        length = subject.length if model.traits.length == "fixed" else T
        x = 80.0 * torch.randn(3, length, subject.width).sign()
        inner = [(name, module) for name, module in model.backbone.named_modules() if isinstance(module, Mixer)]
        for name, module in [("the backbone", model.backbone), *inner]:
            for half in (False, True):
                if not _finite(module, x, half):
                    kind = "bfloat16" if half else "float32"
                    return Outcome("extremes", "failed", note=f"{role}: {name} is not finite at ±80 in {kind}")
    return Outcome("extremes", "passed")


def _finite(module: torch.nn.Module, x: Tensor, half: bool) -> bool:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        y = module(x)[0]
    y.float().mean().backward()
    assert x.grad is not None
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    return all(bool(value.isfinite().all()) for value in (y, x.grad, *grads))
