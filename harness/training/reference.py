"""A reference model that is timed in turn with a run, as a measure of the machine at that time.

Machines drift: they are shared, throttled, warm or cold. The reference does the same work beside every run of a task,
so that the run's speed over the reference's is comparable where seconds are not.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import zoo
from harness import machine
from harness.records.meters import Meters
from harness.records.record import ReferenceSpeed, Speed
from harness.records.spec import TrainSettings
from harness.training.optimizer import adamw, descend
from tasks.base import Task
from tasks.parts import Part
from zoo import size as sizing
from zoo.contract import Shape

ARCHITECTURE, WIDTH, DEPTH, OPTIONS = "pre_ln", 64, 2, {"heads": 2}
SHARE = 0.01
"""Of the run's training seconds that the reference may take."""
LEAST = 3
"""Steps of the reference that are timed, however long they take."""

Timing = dict[str, Any]
"""`steps` and `seconds` that the run had used when the reference was timed; `timed`: seconds of each counted step."""


class Reference:
    """The reference of one run: the run's role, shape, batch size and precision, and its first batch at every step.

    Its learning rate is 0, so that every step is the same work. It is built at its first timing, and leaves the run's
    random state and list of kernels as they were.
    """

    def __init__(
        self, task: Task, parts: Sequence[Part], *, device: torch.device, precision: str, train: TrainSettings
    ) -> None:
        self.task, self.parts, self.device, self.precision, self.settings = task, parts, device, precision, train
        self.problem: str | None = None
        """Why there is no reference."""
        self._step: Callable[[], None] | None = None

    @property
    def shape(self) -> Shape:
        return replace(self.task.shape, width=WIDTH, depth=DEPTH)

    def time_reference(self, timings: list[Timing], used: Meters, progress: float) -> None:
        """Time the reference if it is due, and add the result to `timings`. A first step is not counted."""
        count = 0 if self.problem else due(timings, used.seconds, progress)
        if not count:
            return
        try:
            with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
                step = self._step or self._build()
                if self._step:
                    step()
                timed = [_seconds(step) for _ in range(count)]
        except (ValueError, RuntimeError, MemoryError) as error:  # Unsupported, or no memory left beside the run's
            self.problem, self._step = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300], None
            return
        self._step = step
        if timings and timings[-1]["steps"] == used.steps:
            timings[-1]["timed"] += timed
        else:
            timings.append({"steps": used.steps, "seconds": used.seconds, "timed": timed})

    def _build(self) -> Callable[[], None]:
        """The reference's training step, after a first one, which loads what it needs."""
        torch.manual_seed(0)
        model = zoo.build(ARCHITECTURE, self.task.role, shape=self.shape, **OPTIONS).to(self.device)
        train, parts = self.settings, [part._replace(batch=part.batch.tensors(self.device)) for part in self.parts]
        optimizer = adamw(model, lr=0.0, betas=train.betas, weight_decay=train.weight_decay)

        def step() -> None:
            autocast = machine.autocast(self.device, self.precision)
            descend(model, parts, self.task.loss, optimizer, autocast=autocast, clip=train.clip)

        step()
        return step

    def speed(self, timings: Sequence[Timing], used: Meters) -> Speed:
        """How fast the run was, by itself and beside its reference; see docs/records.md."""
        rate = used.tokens / used.seconds if used.seconds else None
        about = ReferenceSpeed(ARCHITECTURE, WIDTH, DEPTH, OPTIONS["heads"])
        if not timings:
            problem = self.problem or "the run ended before its reference was timed"
            return Speed(rate, replace(about, problem=problem))
        timed = [seconds for timing in timings for seconds in timing["timed"]]
        low, high = np.percentile(timed, (10, 90))
        typical = statistics.median(timed)
        about = replace(
            about,
            parameters=sizing.parameters(sizing.sketch(ARCHITECTURE, self.task.role, self.shape, **OPTIONS)),
            steps=len(timed),
            step_seconds=typical,
            drift=float(high / low),
            tokens_per_s=used.tokens / used.steps / typical,
        )
        before = [{"steps": 0, "seconds": 0.0}, *timings]
        ours = [
            [(now["seconds"] - last["seconds"]) / (now["steps"] - last["steps"])]
            for last, now in zip(before, timings, strict=False)
        ]
        relative = ratio(ours, [timing["timed"] for timing in timings])
        return Speed(rate, about, relative, used.steps / relative)


def due(timings: Sequence[Timing], seconds: float, progress: float) -> int:
    """Steps to time now, `seconds` into the training of a run at `progress` (0 to 1).

    One wherever the reference then still costs at most `SHARE` of the seconds, its uncounted steps included; in any
    case the first of `LEAST` at once, the last by the end of the run, and the others evenly between.
    """
    timed = [second for timing in timings for second in timing["timed"]]
    missing = 1 + int(progress * (LEAST - 1)) - len(timed)
    if missing > 0:
        return missing
    typical = statistics.median(timed)
    return int(sum(timed) + (len(timings) + 2) * typical <= SHARE * seconds)


def _seconds(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def ratio(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    """How many times as fast ours is, from the seconds of each one's steps in each timing.

    The median over timings of the ratio within a timing, so that only neighbours in time are compared.
    """
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(statistics.median(their) / statistics.median(our) for our, their in pairs)
