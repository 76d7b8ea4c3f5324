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
    """An executor of `workers` jobs at a time; of the GPUs each sees `devices`, those with the fewest jobs."""

    def __init__(self, workers: int, devices: int = 1) -> None:
        self.capacity, self.devices = workers, devices
        self.cards = machine.cards()
        self.memory = machine_memory() // workers
        """Bytes of each, unless its bounds say."""
        self.busy: list[tuple[Supervised, list[str]]] = []
        """Processes, and the GPUs of each."""

    def submit(self, job: Job, bounds: Bounds) -> Supervised:
        """Start a job; see `Executor`."""
        self.busy = [(process, cards) for process, cards in self.busy if not process.gone]
        taken = Counter(card for _, cards in self.busy for card in cards)
        cards = sorted(self.cards, key=lambda card: taken[card])[: self.devices]
        bounds = replace(bounds, log=job.folder / OUTPUT, memory=bounds.memory or self.memory)
        process = Supervised(bounds, job.work, card=",".join(cards) or None)
        self.busy.append((process, cards))
        return process

    def together(self) -> AbstractContextManager[None]:
        """Nothing to do for several."""
        return nullcontext()

    def wait(self, handles: Sequence[Supervised], seconds: float) -> None:
        """Wait for news; see `Executor`."""
        wait([process.pipe for process in handles], timeout=seconds)
