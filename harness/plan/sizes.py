"""The size that meets a run's match rule, the model of that size, and what a training step of it costs."""

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

import zoo
from harness import machine
from harness.errors import UserError
from harness.gates.question import training_flops
from harness.isolation.attempt import Unanswered, attempt
from harness.plan import published_rows
from harness.records.spec import Cell, RunSpec
from harness.suite.loaded import LoadedSuite
from tasks.base import Task
from tasks.parts import split
from zoo import architectures, cache
from zoo import size as sizing
from zoo.contract import Model, Role, Shape
from zoo.registry import load_plugin
from zoo.types import Unsupported

Sizes = dict[Cell, "sizing.Size | str | None"]
"""By cell, its size, or why it cannot be; None where a plug-in did not answer, and its run is to find out."""


def solve(specs: list[RunSpec], loaded: LoadedSuite, *, apart: bool = False) -> Sizes:
    """The size of every cell, or why it cannot be; a UserError names the line of a wrong option.

    With `apart`, plug-ins are asked in processes of their own, so that none that hangs keeps others from being made.
    """
    with cache.kept() as known:
        return _solve(specs, loaded, known, apart)


def _solve(specs: list[RunSpec], loaded: LoadedSuite, known: dict[str, Any], apart: bool) -> Sizes:
    sizes: Sizes = {}
    for spec in specs:
        if spec.cell in sizes:
            continue
        task = loaded.task(spec.task_label).task
        try:
            if spec.pretrained:
                sizes[spec.cell] = published_rows.size(published_rows.open_weights(spec, task), task)
            elif apart and spec.plugins:
                sizes[spec.cell] = _size_apart(spec, loaded.plugins_of(spec))
            else:
                sizes[spec.cell] = known_size(spec, task, known)
        except Unsupported as error:
            sizes[spec.cell] = str(error)
        except UserError as error:
            raise loaded.error(error.message, loaded.locate_error(*spec.cell[:2], "", spec.track)) from None
        except (ValueError, TypeError) as error:
            said = str(error).removeprefix(f"{spec.architecture_label}: ")
            message = f"{spec.architecture_label} on {spec.task_label}: {said}"
            where = loaded.locate_error(*spec.cell[:2], str(error), spec.track)
            raise loaded.error(message, where) from None
    return sizes


def _size_apart(spec: RunSpec, plugins: tuple[str, ...]) -> "sizing.Size | None":
    """The size of a cell that needs plug-ins, found in a process of its own; None where that hangs or ends its process.

    Raises: as `resolve_size`.
    """
    try:
        found = attempt(_size_or_error, spec, plugins, seconds=60.0)
    except Unanswered:
        return None
    if isinstance(found, Exception):
        raise found
    size: sizing.Size = found
    return size


def _size_or_error(spec: RunSpec, plugins: tuple[str, ...]) -> "sizing.Size | Exception":
    for plugin in plugins:
        load_plugin(plugin)
    try:
        return resolve_size(spec, spec.build_task())
    except (ValueError, TypeError) as error:  # zoo.Unsupported among them
        kind = next(kind for kind in (Unsupported, ValueError, TypeError) if isinstance(error, kind))
        return kind(str(error))


def known_size(spec: RunSpec, task: Task, known: dict[str, Any]) -> "sizing.Size | str":
    """The size of a cell, or why it cannot be; looked up in `known` where the sources decide it alone.

    FLOPs also depend on the machine, and a plug-in's models on its own source: these are always found out anew.
    """
    if architectures.plugins() or (spec.match and spec.match.meter == "flops_per_token"):
        return resolve_size(spec, task)
    key = repr((spec.architecture, spec.role, task.shape, spec.match, sorted(spec.options.items())))
    if key not in known:
        try:
            known[key] = asdict(resolve_size(spec, task))
        except Unsupported as error:
            known[key] = str(error)
    found = known[key]
    return found if isinstance(found, str) else sizing.Size(**found)


@dataclass(frozen=True)
class RunCounts:
    """How many runs and trials a suite really trains, and how many of its runs cannot be."""

    runs: int
    trials: int
    unsupported: int
    added: int
    """Runs of the seeds that a rule may add."""

    def __str__(self) -> str:
        rest = f", {self.unsupported} more are unsupported" if self.unsupported else ""
        rest += f", up to {self.added} more as seeds are added" if self.added else ""
        return f"{self.runs} runs and {self.trials} trials{rest}"


def count_runs(specs: list[RunSpec], sizes: Sizes, loaded: LoadedSuite) -> RunCounts:
    """Count the runs and trials that train, of these final runs of a suite; rows of published weights train nothing."""
    trained = [spec for spec in specs if not spec.pretrained and not isinstance(sizes[spec.cell], str)]
    tries = loaded.suite.tuning.effort if loaded.suite.tuning else 0
    unsupported = sum(isinstance(sizes[spec.cell], str) for spec in specs)
    cells, more = len({spec.cell for spec in trained}), len(loaded.suite.all_seeds) - len(loaded.suite.first_seeds)
    return RunCounts(len(trained), tries * cells, unsupported, more * cells)


def resolve_size(spec: RunSpec, task: Task) -> sizing.Size:
    """The width, and if need be the depth, that meets the match rule; or the given one; and what it amounts to.

    Raises:
        zoo.Unsupported: the architecture cannot play the task's role, or cannot be matched. ValueError: an option or
            size cannot be.
    """
    options = own_options(spec)
    if spec.match is None:
        shape = replace(task.shape, width=spec.options.get("width", task.shape.width))
        return sizing.measure(spec.architecture, spec.role, shape, **options)
    rule = spec.match
    given: dict[str, Any] = {"target": rule.target, "of": partial(matched, spec, task), **options}
    if rule.meter == "flops_per_token":
        given["build"] = _build
    try:
        if "depth" in rule.solve:
            return sizing.solve_size(spec.architecture, spec.role, task.shape, tolerance=rule.tolerance, **given)
        return sizing.solve_width(spec.architecture, spec.role, task.shape, **given)
    except ValueError as error:
        if isinstance(error, Unsupported) or rule.meter == "params":
            raise
        raise Unsupported(f"cannot be matched on {rule.meter}: {error}") from None


def _build(name: str, role: Role, shape: Shape, **options: Any) -> Model:
    """A real model: FLOPs are counted on the kernels that will run."""
    with torch.random.fork_rng(devices=[]):
        return zoo.build(name, role, shape=shape, **options).to(machine.pick())


def matched(spec: RunSpec, task: Task, model: Model) -> float:
    """The matched quantity, measured on a built model; Unsupported where a state is matched that it does not have."""
    assert spec.match is not None
    if spec.match.meter == "params":
        return sizing.parameters(model, spec.match.count)
    if spec.match.meter == "state_bytes":
        carried = sizing.recurrent_state_bytes(model, sizing.decoded_length(spec.role, task.shape))
        if carried is None:
            raise Unsupported(f"{spec.architecture} carries nothing from step to step that could be matched")
        return carried
    return step_flops(spec, task, model) / (examples_of(spec, task) * task.train_length)


def step_flops(spec: RunSpec, task: Task, model: Model, devices: int = 1) -> int:
    """FLOPs of one training step of the run, counted on its first batch, in the parts it has on so many devices."""
    device = next(model.parameters()).device
    loss = partial(task.loss, label_smoothing=model.recipe.label_smoothing)
    assert spec.train is not None
    autocast = machine.autocast(device, machine.resolve_precision(spec.train.precision, device))
    batch = task.batch("train", 0, spec.seed, size=examples_of(spec, task))
    parts = split(batch, spec.train.accumulate * devices)
    return sum(training_flops(model, part.tensors(device), loss, autocast) for part, _ in parts)


def examples_of(spec: RunSpec, task: Task) -> int:
    """Examples in a training batch."""
    assert spec.train is not None
    return max(1, spec.train.batch_tokens // task.train_length)


def build_model(spec: RunSpec, task: Task, size: sizing.Size) -> Model:
    """The model of a run, initialised by its seed alone."""
    torch.manual_seed(spec.seed)
    shape = replace(task.shape, width=size.width, depth=size.depth or None)
    return zoo.build(spec.architecture, spec.role, shape=shape, **own_options(spec))


def own_options(spec: RunSpec) -> dict[str, Any]:
    """The architecture's options; a width is the shape's."""
    return {key: value for key, value in spec.options.items() if key != "width"}
