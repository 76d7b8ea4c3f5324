"""A run under way: its model, optimizer and data, what it has used, and the checkpoint it goes on from."""

import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import blake2b
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
from harness.training.distributed import ONE_DEVICE, OneDevice
from harness.training.evaluate import evaluate
from harness.training.optimizer import adamw, descend
from harness.training.reference import Reference, Timing
from tasks.base import Split, Task
from tasks.parts import Part, check_parts, split
from zoo import files
from zoo import size as sizing
from zoo.blocks.stack import Stack
from zoo.contract import Batch, Model
from zoo.ops import forms


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

    def __init__(
        self,
        spec: RunSpec,
        task: Task,
        size: sizing.Size,
        folder: Path,
        report: Report,
        ranks: OneDevice = ONE_DEVICE,
        *,
        recompute: bool = False,
    ) -> None:
        assert spec.train is not None
        assert spec.stop is not None
        self.spec, self.task, self.size, self.folder, self.report, self.ranks = spec, task, size, folder, report, ranks
        self.settings, self.rule = spec.train, spec.stop
        self.device = machine.pick()
        self.precision = machine.resolve_precision(self.settings.precision, self.device)
        self.examples = examples_of(spec, task)
        self.layout = {"devices": ranks.count, "shard": ranks.shard, "recompute": recompute}
        """How the run is laid out on devices, as its record says."""
        self.parts = spec.train.accumulate * ranks.count
        """In which a batch goes through the model, on all devices."""
        check_parts(task, self.examples, self.parts)
        first = split(task.batch("train", 0, spec.seed, size=self.examples), self.parts)
        self.reference = Reference(task, first, device=self.device, precision=self.precision, train=self.settings)
        if ranks.rank:
            self.reference.problem = "the first rank times it"
        self.step_cost = self._warm_up_step(first)
        self.unsaved = False
        """Whether the last attempt to write a checkpoint failed."""
        self._begin()
        if not all(ranks.gather(self._load_checkpoint())):
            self._begin()

    def _begin(self) -> None:
        """The state before the first step."""
        self.model = self._build()
        self.called, self.trained = self.ranks.wrap(self.model, self.device)
        self.optimizer = self._adamw(self.trained)
        self.ranks.seed(self.spec.seed)
        self.schedule = self.model.recipe.schedule or self.settings.schedule
        self.progress = Progress()
        self.watch = Watch(self.model, self.optimizer, self.loss, self.autocast, parts=self.parts, trained=self.trained)

    def _build(self) -> Model:
        model = build_model(self.spec, self.task, self.size)
        for stack in model.modules():
            if isinstance(stack, Stack):
                stack.recompute = bool(self.layout["recompute"])
        return model

    def autocast(self) -> AbstractContextManager[Any]:
        """What the forward pass of a training step runs under."""
        return machine.autocast(self.device, self.precision)

    def _adamw(self, model: Model) -> torch.optim.AdamW:
        train = self.settings
        return adamw(model, lr=train.lr, betas=train.betas, weight_decay=train.weight_decay)

    def own_parts(self, batch: list[Part]) -> list[Part]:
        """The parts of a batch that this process computes, on its device."""
        return [part._replace(batch=part.batch.tensors(self.device)) for part in self.ranks.own(batch)]

    def passes(self, parts: list[Part]) -> Iterator[Part]:
        """Each part when it is to go forward and backward, watched."""
        for part in self.ranks.passes(parts, self.called):
            if self.parts > 1:
                self.watch.before_part(part.batch)
            yield part

    def _warm_up_step(self, batch: list[Part]) -> Meters:
        """Count and make steps of another model on the same batch; what a step costs, and in `peak_bytes` the memory.

        So what is loaded and compiled for it, and what counting takes, is on no clock.
        """
        machine.warm_up(self.device)
        forms.load()
        model = self._build().to(self.device)
        flops = step_flops(self.spec, self.task, model, self.ranks.count)
        called, trained = self.ranks.wrap(model, self.device)
        parts = self.own_parts(batch)
        optimizer = self._adamw(trained)
        step = partial(descend, called, loss=self.task.loss, optimizer=optimizer, clip=self.settings.clip)
        beat()
        step(self.ranks.passes(parts, called), autocast=self.autocast())  # makes AdamW's moments
        beat()
        with machine.PeakMemory(self.device, optimizer) as memory:
            step(self.ranks.passes(parts, called), autocast=self.autocast())
        self.peak_bytes = memory.peak
        del model, called, trained, optimizer, step
        machine.release()
        return Meters(tokens=self.examples * batch[0].batch.inputs.shape[1], steps=1, flops=flops)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """What training minimises: the task's loss, with the label smoothing the architecture brings along."""
        return self.task.loss(logits, batch, label_smoothing=self.model.recipe.label_smoothing)

    def score(self, split: Split) -> Scores:
        """The metrics of the model as it stands, on a split."""
        self.ranks.collect(self.trained, self.model)
        return self.ranks.first(partial(self._score, split))

    def _score(self, split: Split) -> Scores:
        most = self.spec.evaluate.limit(split)
        with self.watch.scoring(split) as see:
            return evaluate(self.model, self.task, split, size=max(8, self.examples), limit=most, see=see)

    def reached(self, scores: Scores) -> bool:
        """Whether scores on `valid` reach the stop rule's target."""
        metric = self.task.metric
        return self.rule.reached(scores.get(metric.name), higher_is_better=metric.higher_is_better)

    def go_on_alone(self) -> None:
        """Of several processes, have the first do what is left after training."""
        self.ranks.collect(self.trained, self.model)
        self.watch.join(self.ranks.gather(self.watch.violations))
        self.ranks = self.ranks.leave()

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint" / "state.pt"

    def save_checkpoint(self) -> None:
        """Write everything needed to resume from here, whole or not at all.

        Raises:
            OSError, RuntimeError: it cannot be written.
        """
        self.watch.join(self.ranks.gather(self.watch.violations))
        state = {
            **self.ranks.save(self._checkpoint.parent, self.trained, self.optimizer),
            "progress": asdict(self.progress),
            "random": self.ranks.gather(machine.random_state(self.device)),
            "watch": self.watch.state(),
        }
        if self.ranks.rank:
            return
        with files.whole(files.inside(self.folder, self._checkpoint.relative_to(self.folder))) as part:
            try:
                with part.open("wb") as file:
                    torch.save(state, file)
            except RuntimeError as error:  # torch's, while it handles the file's, which says why
                raise error.__context__ or error from None
            with zipfile.ZipFile(part, "a") as archive:
                archive.comment = self._seal(archive)
        self.ranks.sweep(self._checkpoint.parent, state)

    def _seal(self, archive: zipfile.ZipFile) -> bytes:
        """A hash of the run's id and the checksums in a checkpoint: another run's, or a changed one, has another."""
        known = [(entry.filename, entry.file_size, entry.CRC) for entry in archive.infolist()]
        return blake2b(repr((self.spec.run_id, known)).encode(), digest_size=16).hexdigest().encode()

    def _load_checkpoint(self) -> bool:
        """Go on from the checkpoint, if there is one; False where it is damaged, and the state is of no use."""
        try:
            with files.open_regular(self._checkpoint) as file:
                archive = zipfile.ZipFile(file)
                if archive.comment != self._seal(archive) or archive.testzip():
                    raise ValueError("not what was written for this run")
                file.seek(0)
                state = torch.load(file, map_location=self.device, weights_only=True)
            self.ranks.load(state, self._checkpoint.parent, self.trained, self.optimizer)
            machine.set_random_state(self.device, state["random"][self.ranks.rank % len(state["random"])])
            self.watch.load(state["watch"])
            saved = state["progress"]
            self.progress = Progress(**{**saved, "used": Meters(**saved["used"])})
        except FileNotFoundError:
            return True
        except Exception as error:  # torch raises whatever the bytes make it stumble over
            self.report({"event": "note", "message": f"checkpoint unreadable, starting anew ({type(error).__name__})"})
            return False
        return True
