"""One run, from a RunSpec to its record: the loop every architecture is trained by."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import machine
from harness.gates import verdict
from harness.gates.judge import gates
from harness.gates.subject import Subject
from harness.gates.watch import Watch
from harness.plan.sizes import build_model, examples_of, matched, step_flops
from harness.records.find import MODEL
from harness.records.meters import Meters
from harness.records.provenance import provenance
from harness.records.record import (
    Budget,
    CurvePoint,
    Data,
    Eligibility,
    Error,
    Memory,
    Metrics,
    Record,
    Scores,
    Segment,
    Size,
    Status,
    empty_record,
)
from harness.records.spec import RunSpec
from harness.records.stream_hash import extend_hash
from harness.training.batches import stream
from harness.training.evaluate import evaluate
from harness.training.optimizer import adamw, descend, set_lr
from harness.training.overrides import overrides_of
from harness.training.reference import Reference, Turn
from harness.training.schedule import schedule
from harness.version import __version__
from tasks.base import Split, Task
from zoo import size as sizing
from zoo.contract import Batch, Model
from zoo.ops.kernel_log import record_kernels
from zoo.published import save

Report = Callable[[dict[str, Any]], None]
LOG_POINTS = 100


class Stopped(Exception):
    """The run was asked to stop; its checkpoint is on disk."""


class Diverged(Exception):
    """The loss is not a number any more."""


@dataclass
class Progress:
    """What a checkpoint holds beside model and optimizer."""

    used: Meters = field(default_factory=Meters)
    stream_hash: str = ""
    stream_marks: dict[str, str] = field(default_factory=dict)
    """The hash after 1, 2, 4, 8, … steps, so that runs of different lengths can be compared."""
    curve: list[dict[str, Any]] = field(default_factory=list)
    segments: list[dict[str, Any]] = field(default_factory=list)
    loss_sum: float = 0.0
    loss_steps: int = 0
    reached: bool = False
    """Whether a score on `valid` has reached the stop rule's target."""
    memory: dict[str, int] | None = None
    """Peak memory of training steps, read once."""
    reference: list[Turn] = field(default_factory=list)
    kernels: dict[str, str] = field(default_factory=dict)
    """What computed each op of the training steps."""


class Run:
    """The state of one run between its first step and its record."""

    def __init__(self, spec: RunSpec, task: Task, size: sizing.Size, folder: Path, report: Report) -> None:
        assert spec.train is not None
        assert spec.stop is not None
        self.spec, self.task, self.size, self.folder, self.report = spec, task, size, folder, report
        self.settings, self.rule = spec.train, spec.stop
        self.device = machine.pick()
        self.precision = machine.resolve_precision(self.settings.precision, self.device)
        self.examples = examples_of(spec, self.task)
        first = self.task.batch("train", 0, spec.seed, size=self.examples)  # loads the data before memory is watched
        self.reference = Reference(self.task, first, device=self.device, precision=self.precision, train=self.settings)
        self._warm_up(first)
        self.memory = machine.PeakMemory(self.device)
        self.model = build_model(spec, self.task, size).to(self.device)
        self.optimizer = self._adamw(self.model)
        self.schedule = self.model.recipe.schedule or self.settings.schedule
        flops = step_flops(spec, self.task, self.model)
        self.step_cost = Meters(tokens=first.inputs.shape[0] * first.inputs.shape[1], steps=1, flops=flops)
        self.progress = Progress()
        self.watch = Watch(self.model, self.optimizer, self.loss, self._autocast)
        self._load_checkpoint()

    def _autocast(self) -> AbstractContextManager[Any]:
        return machine.autocast(self.device, self.precision)

    def _warm_up(self, batch: Batch) -> None:
        """A step of another model on the same batch, so that what it loads and compiles, which depends on the batch's
        size, is on no clock and in no memory."""
        machine.warm_up(self.device)
        model = build_model(self.spec, self.task, self.size).to(self.device)
        there = batch.tensors(self.device)
        descend(model, there, self.task.loss, self._adamw(model), autocast=self._autocast(), clip=self.settings.clip)
        del model
        machine.release()

    def _adamw(self, model: Model) -> torch.optim.AdamW:
        train = self.settings
        return adamw(model, lr=train.lr, betas=train.betas, weight_decay=train.weight_decay)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """What training minimises: the task's loss, with the label smoothing the architecture brings along."""
        return self.task.loss(logits, batch, label_smoothing=self.model.recipe.label_smoothing)

    def train(self, stop: Callable[[], bool], checkpoint: float) -> None:
        """Train until the stop rule ends it, or a score on `valid` reaches the rule's target.

        Raises:
            Stopped: `stop()` became true; a checkpoint was written.
            Diverged: a loss or gradient was not finite.
        """
        used, spec = self.progress.used, self.spec
        self.progress.segments.append(
            {"start": time.time(), "from_step": used.steps, "threads": torch.get_num_threads()}
        )
        saved = time.monotonic()
        batches = stream(self.task, spec.seed, self.examples, start=used.steps)
        self.model.train()
        while not (self.progress.reached or self.rule.done(used, self.step_cost)):
            before = self.rule.progress(used)
            batch = next(batches)
            self.progress.stream_hash = extend_hash(self.progress.stream_hash, batch)
            self.watch.take(batch)
            seconds = used.seconds
            self._step(batch)
            self.watch.done(used.seconds - seconds)
            if used.steps & (used.steps - 1) == 0:
                self.progress.stream_marks[str(used.steps)] = self.progress.stream_hash
            after = self.rule.progress(used)
            done = self.rule.done(used, self.step_cost)
            if _crossed(before, after, 1 / LOG_POINTS) or done:
                self._gauge(after)
                self._log(score=_crossed(before, after, spec.evaluate.every) and not done)
            if stop():
                self._save_checkpoint()
                raise Stopped
            if time.monotonic() - saved > checkpoint:
                self._save_checkpoint()
                saved = time.monotonic()
        self._gauge(1.0)
        self.watch.close()
        self.progress.segments[-1] |= {"end": time.time(), "to_step": used.steps}

    def _step(self, batch: Batch) -> None:
        """One optimiser step, on the clock."""
        used, cost, train = self.progress.used, self.step_cost, self.settings
        batch = batch.tensors(self.device)
        start = time.perf_counter()
        ahead = min(1.0, self.rule.progress(used) + self._stride())
        set_lr(self.optimizer, schedule(self.schedule, ahead, warmup=train.warmup, final=train.final_lr))
        autocast = self._autocast()
        with record_kernels(self.progress.kernels):
            value, norm = descend(self.model, batch, self.loss, self.optimizer, autocast=autocast, clip=train.clip)
        used.seconds += time.perf_counter() - start
        used.tokens, used.steps, used.flops = used.tokens + cost.tokens, used.steps + 1, used.flops + cost.flops
        self.progress.loss_sum += value
        self.progress.loss_steps += 1
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise Diverged(f"loss {value}, gradient norm {norm} at step {used.steps}")

    def _stride(self) -> float:
        """The progress one step makes."""
        used = self.progress.used
        if self.rule.meter == "seconds":
            return used.seconds / max(1, used.steps) / self.rule.limit
        return getattr(self.step_cost, self.rule.meter) / self.rule.limit

    def _gauge(self, progress: float) -> None:
        """The peak of memory, once, from the second step on (the first makes AdamW's moments when its activations are
        gone), before anything but training took memory; from then on the reference's turns."""
        run = self.progress
        if run.memory is None and (run.used.steps > 1 or progress == 1.0):
            run.memory = self.memory.read()
        if run.memory is not None:
            self.reference.time_reference(run.reference, run.used, progress)

    def _log(self, *, score: bool) -> None:
        progress, used = self.progress, self.progress.used
        point: dict[str, Any] = {**asdict(used), "loss": progress.loss_sum / progress.loss_steps}
        if score:
            scores = self.score("valid")
            point["valid"], progress.reached = scores, self._reached(scores)
        progress.curve.append(point)
        progress.loss_sum, progress.loss_steps = 0.0, 0
        self.report({"event": "step", "progress": self.rule.progress(used), **point})

    def _reached(self, scores: Scores) -> bool:
        metric = self.task.metric
        return self.rule.reached(scores.get(metric.name), higher_is_better=metric.higher_is_better)

    def score(self, split: Split) -> Scores:
        """The metrics of the model as it stands, on a split."""
        most = self.spec.evaluate.limit(split)
        with self.watch.scoring(split) as see:
            return evaluate(self.model, self.task, split, size=max(8, self.examples), limit=most, see=see)

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint" / "state.pt"

    def _save_checkpoint(self) -> None:
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._checkpoint.with_suffix(".tmp")
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "rng": torch.get_rng_state(),
            "watch": self.watch.state(),
        }
        torch.save(state, temporary)
        os.replace(temporary, self._checkpoint)

    def _load_checkpoint(self) -> None:
        if not self._checkpoint.is_file():
            return
        try:
            state = torch.load(self._checkpoint, map_location=self.device, weights_only=True)
        except Exception as error:  # torch raises whatever the bytes make it stumble over
            self.report({"event": "note", "message": f"checkpoint unreadable, starting anew ({type(error).__name__})"})
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"].cpu())
        self.watch.load(state.get("watch", {}))
        saved = state["progress"]
        self.progress = Progress(**{**saved, "used": Meters(**saved["used"])})

    def _subject(self, mismatch: float | None) -> Subject:
        """What the gates judge; `mismatch` is that of the trained model."""
        spec, size = self.spec, self.size
        return Subject(
            model=self.model,
            task=self.task,
            size=replace(Size(**asdict(size)), mismatch=mismatch),
            match=spec.match,
            build=lambda seed: build_model(spec.replace(seed=seed), self.task, size).to(self.device),
            score=lambda model, task: evaluate(model, task, "test", size=8, limit=8),
            loss=self.loss,
            again=spec.build_task,
            watch=self.watch,
            seed=spec.seed,
            stop=self.rule,
            used=self.progress.used,
            step=self.step_cost,
            examples=self.examples,
        )

    def record(self, suite: str, status: Status, error: Error | None = None) -> Record:
        """The record of the run as it stands. Scores and gates only for a run that ended well."""
        spec, task, run, used = self.spec, self.task, self.progress, self.progress.used
        metrics, size, reached, eligibility = Metrics.of(task), self._measured_size(), None, Eligibility()
        if status == "ok":
            split = spec.evaluate.split or "valid"
            metrics = metrics.scored(split, self.score(split))
            if self.rule.target is not None:
                reached = run.reached or self._reached(metrics.on(split))
            if spec.kind == "final":
                metrics = metrics.scored("test", self.score("test"))
                skipped = spec.evaluate.skip_gates
                eligibility = verdict(gates(self._subject(size.mismatch), skipped), skipped)
        per_token = self.step_cost.flops / self.step_cost.tokens
        return empty_record(spec, suite, metrics, status, error).replace(
            size=size,
            budget=Budget(self.rule, reached, used, per_token),
            data=Data(spec.fingerprint, run.stream_hash, run.stream_marks),
            defaults=overrides_of(self.model, spec.options),
            curve=[CurvePoint.from_dict(point) for point in run.curve],
            speed=self.reference.speed(run.reference, used),
            memory=Memory.from_dict(run.memory or self.memory.read()),
            eligibility=eligibility,
            provenance=provenance(self.device, self.precision, run.kernels),
            segments=[Segment.from_dict(segment) for segment in run.segments],
        )

    def keep(self, suite: str, plugins: tuple[str, ...]) -> None:
        """Leave the trained model beside the record, with what turns text into its tokens."""
        self.model.tokenizer = self.task.tokenizer
        spec = self.spec
        where = {"suite": suite, "run_id": self.folder.name, "task": spec.task_label, "seed": spec.seed}
        save(self.model, self.folder / MODEL, made={"zoobench": __version__, **where, "plugins": plugins})

    def _measured_size(self) -> Size:
        """The size as solved, with what is counted on the trained model itself."""
        size = Size(**asdict(self.size))
        if self.spec.match is not None and size.target:
            size = replace(size, mismatch=matched(self.spec, self.task, self.model) / size.target - 1)
        inside = sizing.parameters(self.model, "non_embedding")
        return replace(size, params=sizing.parameters(self.model), params_non_embedding=inside)


def train(
    spec: RunSpec,
    task: Task,
    size: sizing.Size,
    *,
    suite: str,
    folder: Path,
    report: Report = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
    checkpoint: float = 20.0,
    keep: bool = False,
    plugins: tuple[str, ...] = (),
) -> Record:
    """Train, score and judge one run; the record says how it ended. A checkpoint is written every `checkpoint` seconds.

    With `keep` the weights of a final run stay, and the `plugins` that a model of theirs needs are noted there.

    Raises:
        Stopped: asked to; call again with the same folder to go on.
    """
    run = Run(spec, task, size, folder, report)
    report({"event": "start", "resumed_at": run.progress.used.steps, "flops_per_step": run.step_cost.flops})
    try:
        run.train(stop, checkpoint)
    except Diverged as error:
        return run.record(suite, "diverged", Error("Diverged", str(error)))
    report({"event": "scoring"})
    record = run.record(suite, "ok")
    if keep and spec.kind == "final":
        run.keep(suite, plugins)
    return record


def _crossed(before: float, after: float, every: float) -> bool:
    return every > 0 and int(before / every + 1e-9) < int(after / every + 1e-9)
