"""Both ends of the process that measures one subject: it builds the model, then measures on request.

Each subject has its own process, so that several can take turns without sharing memory or compiled code.
"""

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

import torch

from harness import machine
from harness.bench import peers
from harness.bench.subject import Subject, loss
from harness.isolation.memory import kills
from harness.processes import launch
from harness.training.inference_time import time_tokens
from harness.training.optimizer import descend
from tasks.parts import Part
from zoo import size as sizing
from zoo.contract import Model, State
from zoo.ops.kernel_log import record_kernels
from zoo.types import Unsupported

CLIP = 1.0
MIN_STEPS = 2
"""Steps of a turn, however long they take."""
DECODED = 32
"""Tokens of a decoding turn."""


class Measurements:
    """A subject's model with its optimiser, after first steps, the last of which was watched for memory."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.device = subject, machine.pick()
        self.batch = subject.example().tensors(self.device)
        machine.warm_up(self.device)
        self._build()  # another model, whose step loads and compiles what the first step would
        self._step()
        del self.model, self.optimizer
        machine.release()
        torch.manual_seed(0)
        self._build()
        with record_kernels() as self.kernels:
            self._step()
        with machine.PeakMemory(self.device, self.optimizer) as memory:
            self._step()
        self.peak_bytes = memory.peak
        self._decoding: dict[int, tuple[Model, State]] = {}

    def _build(self) -> None:
        self.model = self.subject.build(self.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)

    def _autocast(self) -> AbstractContextManager[Any]:
        return machine.autocast(self.device, self.subject.precision)

    def _step(self) -> None:
        descend(self.model, [Part(self.batch)], loss, self.optimizer, autocast=self._autocast(), clip=CLIP)

    def facts(self) -> dict[str, Any]:
        """What does not vary: parameters, FLOPs of a step, bytes of state and of peak memory, kernels, threads."""
        found: dict[str, Any] = {
            "params": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "peak_memory_bytes": self.peak_bytes,
            "kernels": self.kernels,
            "threads": torch.get_num_threads(),
        }
        if isinstance(self.model, Model):
            found["flops_per_step"] = sizing.training_flops(self.model, self.batch, loss, autocast=self._autocast())
            if self.subject.role == "lm":
                empty: Any = self.subject.build("meta")
                found["state_bytes"] = sizing.recurrent_state_bytes(empty, self.subject.length)
        return found

    def train(self, seconds: float) -> list[float]:
        """Seconds of each training step of a turn."""
        self.model.train()
        return self._time(self._step, seconds)

    def prefill(self, seconds: float) -> list[float]:
        """Seconds of reading the whole batch, without gradients."""
        self.model.eval()

        def read() -> None:
            with torch.no_grad(), self._autocast():
                self.model(self.batch)
            machine.synchronize(self.device)

        return self._time(read, seconds)

    def _time(self, work: Callable[[], None], seconds: float) -> list[float]:
        """Seconds of each call, after one that is not counted."""
        work()
        found: list[float] = []
        while len(found) < MIN_STEPS or sum(found) < seconds:
            start = time.perf_counter()
            work()
            found.append(time.perf_counter() - start)
        machine.release()
        return found

    def decode(self, context: int) -> list[float] | None:
        """Seconds of each of the next tokens behind `context` others, one sequence; None where it cannot be resumed.

        The next turn goes on where this one ends.
        """
        if not isinstance(self.model, Model) or self.subject.role != "lm":
            return None
        token = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        with torch.no_grad(), self._autocast():
            try:
                model, state = self._decoding.get(context) or self._read(context)
            except Unsupported:
                return None
            found, state = time_tokens(model, token, state, DECODED, self.device)
        self._decoding[context] = model, state
        return found

    def _read(self, context: int) -> tuple[Model, State]:
        """A model long enough for many turns, and its state after `context` tokens."""
        model = replace(self.subject, length=context + 64 * DECODED).build(self.device)
        assert isinstance(model, Model)
        model.eval()
        tokens = replace(self.subject, length=context).example(1).tensors(self.device).inputs
        return model, model.extend(tokens, model.init_state(1))[1]

    def matmul(self) -> float:
        """FLOP/s of a large matrix product in the subject's precision."""
        dtype = torch.bfloat16 if self.subject.precision == "bf16" else torch.float32
        return machine.matmul_speed(self.device, dtype)


class MeasurementFailed(Exception):
    """A subject could not be measured; the arguments are a row's `status`, and why."""


def serve(subject: Subject, threads: int | None, pipe: Connection) -> None:
    """Build the subject and send its facts, then answer requests, (method, *arguments), until the parent is gone.

    What fails is answered by a MeasurementFailed, which is the last answer.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        measurements = Measurements(peers.match(subject) if subject.peer else subject)
        pipe.send(measurements.facts())
        while True:
            method, *arguments = pipe.recv()
            pipe.send(getattr(measurements, method)(*arguments))
    except EOFError:
        return
    except Unsupported as error:
        pipe.send(MeasurementFailed("unsupported", str(error)))
    except Exception as error:
        pipe.send(MeasurementFailed("failed", f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]))
    finally:
        pipe.close()
        os._exit(0)  # a peer's own threads must not keep the process


@dataclass(eq=False)
class Worker:
    """The parent's end: a subject's process, its facts, and the training turns so far."""

    subject: Subject
    process: Any
    pipe: Any
    facts: dict[str, Any] = field(default_factory=dict)
    turns: list[list[float]] = field(default_factory=list)
    kills: int = field(default_factory=kills)
    """How many processes the kernel had killed when it started, because memory ran out."""

    def ask(self, *request: Any) -> Any:
        """What a method of `Measurements` returns there; without a request, the facts that are sent first.

        Raises:
            MeasurementFailed: it could not be measured, or the process is gone.
        """
        try:
            if request:
                self.pipe.send(request)
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(5)
            if kills() > self.kills:
                raise MeasurementFailed("oom", "the kernel killed the process because memory ran out") from None
            raise MeasurementFailed("failed", "the process ended") from None
        if isinstance(answer, MeasurementFailed):
            raise answer
        return answer


@contextmanager
def worker_pool(threads: int | None) -> Iterator[Callable[[Subject], Worker]]:
    """A function that starts a worker for a subject; they all end with the block."""
    workers: list[Worker] = []

    def start(subject: Subject) -> Worker:
        workers.append(Worker(subject, *launch(serve, subject, threads, duplex=True)))
        workers[-1].facts = workers[-1].ask()
        return workers[-1]

    try:
        yield start
    finally:
        for worker in workers:
            worker.process.terminate()
            worker.process.join(10)
            worker.pipe.close()


def median(turns: list[list[float]]) -> float:
    """The median over turns of each turn's median."""
    return statistics.median(statistics.median(turn) for turn in turns)
