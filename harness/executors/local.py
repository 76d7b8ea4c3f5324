"""Runs in processes of this machine."""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from multiprocessing.connection import wait

from harness import machine
from harness.executors.pool import OUTPUT, Job
from harness.isolation.memory import machine_memory
from harness.isolation.supervisor import Bounds, Supervised


class Local:
    """An executor of `workers` processes at a time; of the GPUs each sees one, that with the fewest processes."""

    def __init__(self, workers: int) -> None:
        self.capacity = workers
        self.cards = machine.cards()
        self.memory = machine_memory() // workers
        """Bytes of each, unless its bounds say."""
        self.busy: list[tuple[Supervised, str | None]] = []
        """Processes, and the GPU of each."""

    def submit(self, job: Job, bounds: Bounds) -> Supervised:
        """Start a job; see `Executor`."""
        self.busy = [(process, card) for process, card in self.busy if not process.gone]
        taken = Counter(card for _, card in self.busy)
        card = min(self.cards, key=lambda card: taken[card], default=None)
        bounds = replace(bounds, log=job.folder / OUTPUT, memory=bounds.memory or self.memory)
        process = Supervised(bounds, job.work, card=card)
        self.busy.append((process, card))
        return process

    def together(self) -> AbstractContextManager[None]:
        """Nothing to do for several."""
        return nullcontext()

    def wait(self, handles: Sequence[Supervised], seconds: float) -> None:
        """Wait for news; see `Executor`."""
        wait([process.pipe for process in handles], timeout=seconds)
