"""The loop every architecture is trained by, from a RunSpec to its record."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from harness.isolation.beat import beat
from harness.isolation.supervisor import Report
from harness.records.meters import LOG_POINTS, crossed
from harness.records.record import Error, Record
from harness.records.spec import RunSpec
from harness.training.batches import stream
from harness.training.distributed import ONE_DEVICE, OneDevice
from harness.training.finish import finish, keep_model
from harness.training.optimizer import descend, set_lr
from harness.training.run import Run
from harness.training.schedule import schedule
from tasks.base import Task
from tasks.parts import split
from zoo.contract import Batch
from zoo.ops.kernel_log import record_kernels
from zoo.size import Size


class Stopped(Exception):
    """The run was asked to stop; its checkpoint is on disk."""


class Diverged(Exception):
    """The loss is not a number any more."""


def train(
    spec: RunSpec,
    task: Task,
    size: Size,
    *,
    suite: str,
    folder: Path,
    report: Report = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
    checkpoint: float = 20.0,
    keep: bool = False,
    plugins: tuple[str, ...] = (),
    ranks: OneDevice = ONE_DEVICE,
    recompute: bool = False,
) -> Record:
    """Train, score and judge one run; the record says how it ended. A checkpoint is written every `checkpoint` seconds.

    With `keep` the weights of a final run stay, and the `plugins` that a model of theirs needs are noted there. Of
    several `ranks` that call this, the first alone returns. With `recompute`, blocks are computed again for their
    backward pass, to take less memory.

    Raises:
        Stopped: asked to; call again with the same folder to go on.
    """
    run = Run(spec, task, size, folder, report, ranks, recompute=recompute)
    resumed = {"resumed_at": run.progress.used.steps, "curve": run.progress.curve}
    report({"event": "start", **resumed, "flops_per_step": run.step_cost.flops})
    try:
        train_steps(run, stop, checkpoint)
    except Diverged as error:
        run.go_on_alone()
        return finish(run, suite, "diverged", Error("Diverged", str(error)))
    run.go_on_alone()
    report({"event": "scoring"})
    record = finish(run, suite, "ok")
    if keep and spec.kind == "final":
        keep_model(run, suite, plugins)
    return record


def train_steps(run: Run, stop: Callable[[], bool], checkpoint: float) -> None:
    """Train until the stop rule ends it, or a score on `valid` reaches the rule's target.

    Raises:
        Stopped: `stop()` became true; a checkpoint was written.
        Diverged: a loss or gradient was not finite.
    """
    progress, used, rule = run.progress, run.progress.used, run.rule
    progress.segments.append({"start": time.time(), "from_step": used.steps, "threads": torch.get_num_threads()})
    saved = time.monotonic()
    batches = stream(run.task, run.spec.seed, run.examples, start=used.steps, before=progress.stream_hash)
    run.model.train()
    while not (progress.reached or rule.done(used, run.step_cost)):
        before, seconds = rule.progress(used), used.seconds
        batch, progress.stream_hash, examples = next(batches)
        run.watch.before_step(batch, examples)
        step(run, batch)
        run.watch.after_step(used.seconds - seconds)
        beat()
        if used.steps & (used.steps - 1) == 0:
            progress.stream_marks[str(used.steps)] = progress.stream_hash
        after, done = rule.progress(used), rule.done(used, run.step_cost)
        if done or crossed(before, after, 1 / LOG_POINTS):
            run.reference.time_reference(progress.reference, used, after)
            _log(run, score=crossed(before, after, run.spec.evaluate.every) and not done)
        stopping, due = run.ranks.first(lambda: (stop(), time.monotonic() - saved > checkpoint))  # noqa: B023
        if stopping:
            save_checkpoint(run)
            raise Stopped
        if due:
            save_checkpoint(run)
            saved = time.monotonic()
    run.reference.time_reference(progress.reference, used, 1.0)
    run.watch.close()
    progress.segments[-1] |= {"end": time.time(), "to_step": used.steps}


def save_checkpoint(run: Run) -> None:
    """Write a checkpoint; where that cannot be, the one before stays, training goes on, and it is said once."""
    try:
        run.save_checkpoint()
        run.unsaved = False
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError where its writer fails
        if not run.unsaved:
            why = " ".join(str(error).split())[:200]
            run.report({"event": "note", "message": f"no checkpoint can be written to {run.folder}: {why}"})
        run.unsaved = True


def step(run: Run, batch: Batch) -> None:
    """One optimiser step, on the clock."""
    progress, used, cost, settings = run.progress, run.progress.used, run.step_cost, run.settings
    parts = run.own_parts(split(batch, run.parts))
    start = time.perf_counter()
    ahead = min(1.0, run.rule.progress(used) + _stride(run))
    run.watch.fraction = schedule(run.schedule, ahead, warmup=settings.warmup, final=settings.final_lr)
    set_lr(run.optimizer, run.watch.fraction)
    with record_kernels(progress.kernels):
        given: dict[str, Any] = {"autocast": run.autocast(), "clip": settings.clip}
        value, norm = descend(run.called, run.passes(parts), run.loss, run.optimizer, **given)
    value, norm, seconds = run.ranks.agree(value, norm, time.perf_counter() - start)
    used.seconds += seconds
    used.tokens, used.steps, used.flops = used.tokens + cost.tokens, used.steps + 1, used.flops + cost.flops
    progress.loss_sum += value
    progress.loss_steps += 1
    if not (math.isfinite(value) and math.isfinite(norm)):
        raise Diverged(f"loss {value}, gradient norm {norm} at step {used.steps}")


def _stride(run: Run) -> float:
    """The progress one step makes."""
    used, rule = run.progress.used, run.rule
    if rule.meter == "seconds":
        return used.seconds / max(1, used.steps) / rule.limit
    return run.step_cost.of(rule.meter) / rule.limit


def _log(run: Run, *, score: bool) -> None:
    """Add a point to the curve and report it, with a score on `valid` where one is due."""
    progress, used = run.progress, run.progress.used
    point: dict[str, Any] = {**asdict(used), "loss": progress.loss_sum / progress.loss_steps}
    if score:
        point["valid"] = run.score("valid")
        progress.reached = run.reached(point["valid"])
    progress.curve.append(point)
    progress.loss_sum, progress.loss_steps = 0.0, 0
    run.report({"event": "step", "progress": run.rule.progress(used), **point})
