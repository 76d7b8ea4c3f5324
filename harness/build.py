"""From a RunSpec to its model: the size that meets the match rule, the model, and what a training step of it costs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

import zoo
from harness import device as machine
from harness.spec import RunSpec
from tasks.base import Task
from zoo import size as sizing
from zoo.contract import Model, Role, Shape
from zoo.types import Unsupported


def resolve_size(spec: RunSpec, task: Task) -> sizing.Size:
    """The width, and if need be the depth, that meets the match rule; or the given one; and what it amounts to.

    Raises:
        zoo.Unsupported: the architecture cannot play the task's role, or cannot be matched. ValueError: an option or
            size cannot be.
    """
    options = _options(spec)
    if spec.match is None:
        shape = replace(task.shape, width=spec.options.get("width", task.shape.width))
        return sizing.measure(spec.architecture, spec.role, shape, **options)
    meter = matched_meter(spec.match)
    found: dict[str, Any] = {"target": spec.match[meter], "of": partial(matched, spec, task), **options}
    if meter == "flops_per_token":
        found["build"] = _build
    if "depth" in spec.match.get("solve", ["width", "depth"]):
        found["tolerance"] = spec.match["tolerance"]
        solve = sizing.solve_size
    else:
        solve = sizing.solve_width
    try:
        return solve(spec.architecture, spec.role, task.shape, **found)
    except Unsupported:
        raise
    except ValueError as error:
        if meter == "params":
            raise
        raise Unsupported(f"cannot be matched on {meter}: {error}") from None


def _build(name: str, role: Role, shape: Shape, **options: Any) -> Model:
    """A real model: FLOPs are counted on the kernels that will run."""
    with torch.random.fork_rng(devices=[]):
        return zoo.build(name, role, shape=shape, **options).to(machine.pick())


def matched_meter(match: dict[str, Any]) -> str:
    """Which of params, flops_per_token, state_bytes a match rule holds equal."""
    return next(name for name in ("params", "flops_per_token", "state_bytes") if name in match)


def matched(spec: RunSpec, task: Task, model: Model) -> float:
    """How much a model has of what the run's match rule holds equal.

    Raises:
        Unsupported: it is matched by a state that it does not have.
    """
    assert spec.match is not None
    meter = matched_meter(spec.match)
    if meter == "params":
        return sizing.parameters(model, spec.match["count"])
    if meter == "state_bytes":
        carried = sizing.recurrent_state_bytes(model, sizing.decoded_length(spec.role, task.shape))
        if carried is None:
            raise Unsupported(f"{spec.architecture} carries nothing from step to step that could be matched")
        return carried
    return step_flops(spec, task, model) / (examples_of(spec, task) * task.train_length)


def step_flops(spec: RunSpec, task: Task, model: Model) -> int:
    """FLOPs of one training step of the run, counted on its first batch."""
    device = next(model.parameters()).device
    batch = task.batch("train", 0, spec.seed, size=examples_of(spec, task)).tensors(device)
    loss = partial(task.loss, label_smoothing=model.recipe.label_smoothing)
    autocast = machine.autocast(device, machine.resolve_precision(spec.train["precision"], device))
    return sizing.training_flops(model, batch, loss, autocast=autocast)


def examples_of(spec: RunSpec, task: Task) -> int:
    """Examples in a training batch."""
    return max(1, spec.train["batch_tokens"] // task.train_length)


def build_model(spec: RunSpec, task: Task, size: sizing.Size) -> Model:
    """The model of a run, initialised by its seed alone."""
    torch.manual_seed(spec.seed)
    shape = replace(task.shape, width=size.width, depth=size.depth or None)
    return zoo.build(spec.architecture, spec.role, shape=shape, **_options(spec))


def _options(spec: RunSpec) -> dict[str, Any]:
    """The architecture's options; a width is the shape's."""
    return {key: value for key, value in spec.options.items() if key != "width"}
