"""A run under way: its model, optimizer and data, what it has used, and the checkpoint it goes on from."""

import zipfile
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import machine
from harness.gates.watch import Watch
from harness.isolation.beat import beat
from harness.isolation.supervisor import Report
from harness.plan.sizes import build_model, examples_of, step_flops
from harness.records.meters import Meters
from harness.records.record import Scores
from harness.records.spec import RunSpec
from harness.training.evaluate import evaluate
from harness.training.optimizer import adamw, descend
from harness.training.reference import Reference, Timing
from tasks.base import Split, Task
from zoo import files
from zoo import size as sizing
from zoo.contract import Batch, Model


@dataclass
class Progress:
    """What a checkpoint holds beside model and optimizer."""

    used: Meters = field(default_factory=Meters)
    stream_hash: str = ""
    stream_marks: dict[str, str] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    segments: list[dict[str, Any]] = field(default_factory=list)
    loss_sum: float = 0.0
    loss_steps: int = 0
    reached: bool = False
    """Whether a score on `valid` has reached the stop rule's target."""
    reference: list[Timing] = field(default_factory=list)
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
        self.examples = examples_of(spec, task)
        first = task.batch("train", 0, spec.seed, size=self.examples)
        self.reference = Reference(task, first, device=self.device, precision=self.precision, train=self.settings)
        self.step_cost = self._warm_up_step(first)
        self.unsaved = False
        """Whether the last attempt to write a checkpoint failed."""
        self._begin()
        if not self._load_checkpoint():
            self._begin()

    def _begin(self) -> None:
        """The state before the first step."""
        self.model = build_model(self.spec, self.task, self.size).to(self.device)
        self.optimizer = self._adamw(self.model)
        self.schedule = self.model.recipe.schedule or self.settings.schedule
        self.progress = Progress()
        self.watch = Watch(self.model, self.optimizer, self.loss, self.autocast)

    def autocast(self) -> AbstractContextManager[Any]:
        """What the forward pass of a training step runs under."""
        return machine.autocast(self.device, self.precision)

    def _adamw(self, model: Model) -> torch.optim.AdamW:
        train = self.settings
        return adamw(model, lr=train.lr, betas=train.betas, weight_decay=train.weight_decay)

    def _warm_up_step(self, batch: Batch) -> Meters:
        """Count and make steps of another model on the same batch; what a step costs, and in `peak_bytes` the memory.

        So what is loaded and compiled for it, and what counting takes, is on no clock.
        """
        machine.warm_up(self.device)
        model = build_model(self.spec, self.task, self.size).to(self.device)
        flops = step_flops(self.spec, self.task, model)
        there, optimizer = batch.tensors(self.device), self._adamw(model)
        step = partial(descend, model, there, self.task.loss, optimizer, clip=self.settings.clip)
        beat()
        step(autocast=self.autocast())  # makes AdamW's moments
        beat()
        with machine.PeakMemory(self.device, optimizer) as memory:
            step(autocast=self.autocast())
        self.peak_bytes = memory.peak
        del model, optimizer, step
        machine.release()
        return Meters(tokens=batch.inputs.shape[0] * batch.inputs.shape[1], steps=1, flops=flops)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """What training minimises: the task's loss, with the label smoothing the architecture brings along."""
        return self.task.loss(logits, batch, label_smoothing=self.model.recipe.label_smoothing)

    def score(self, split: Split) -> Scores:
        """The metrics of the model as it stands, on a split."""
        most = self.spec.evaluate.limit(split)
        with self.watch.scoring(split) as see:
            return evaluate(self.model, self.task, split, size=max(8, self.examples), limit=most, see=see)

    def reached(self, scores: Scores) -> bool:
        """Whether scores on `valid` reach the stop rule's target."""
        metric = self.task.metric
        return self.rule.reached(scores.get(metric.name), higher_is_better=metric.higher_is_better)

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint" / "state.pt"

    def save_checkpoint(self) -> None:
        """Write everything needed to resume from here, whole or not at all.

        Raises:
            OSError, RuntimeError: it cannot be written.
        """
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
            "random": machine.random_state(self.device),
            "watch": self.watch.state(),
        }
        with files.whole(files.inside(self.folder, self._checkpoint.relative_to(self.folder))) as part:
            torch.save(state, part)

    def _load_checkpoint(self) -> bool:
        """Go on from the checkpoint, if there is one; False where it is damaged, and the state is of no use."""
        try:
            with files.open_regular(self._checkpoint) as file:
                if damaged := zipfile.ZipFile(file).testzip():
                    raise ValueError(f"{damaged} is not what was written")
                file.seek(0)
                state = torch.load(file, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            machine.set_random_state(self.device, state["random"])
            self.watch.load(state["watch"])
            saved = state["progress"]
            self.progress = Progress(**{**saved, "used": Meters(**saved["used"])})
        except FileNotFoundError:
            return True
        except Exception as error:  # torch raises whatever the bytes make it stumble over
            self.report({"event": "note", "message": f"checkpoint unreadable, starting anew ({type(error).__name__})"})
            return False
        return True
