"""The process of one subject: builds it, then measures on request, so that subjects can take turns."""

from __future__ import annotations

import os
import signal
import statistics
import time
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import nn

from harness import machine
from harness.bench import peers
from harness.bench.subject import Subject, loss
from harness.training.optimizer import descend
from zoo import size as sizing
from zoo.contract import Batch, Model, State
from zoo.ops.kernel_log import record_kernels
from zoo.types import Unsupported

CLIP = 1.0
LEAST = 2
"""Steps of a turn, however long they take."""
DECODED = 32
"""Tokens of a decoding turn."""


class Bench:
    """A subject's model with its optimiser, after a first step whose memory was watched."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.device = machine.pick()
        self.batch = subject.example().tensors(self.device)
        self._warm_up()
        machine.release()
        memory = machine.PeakMemory(self.device)
        torch.manual_seed(0)
        self.model = subject.build(self.device)
        self.optimizer = _adamw(self.model)
        with record_kernels() as self.kernels:
            self.step()
            self.step()
        self.peak_bytes = memory.read()["peak_bytes"]
        self._decoding: dict[int, tuple[Model, State]] = {}

    def _warm_up(self) -> None:
        """A step of another model, which loads and compiles what the first step would."""
        machine.warm_up(self.device)
        model = self.subject.build(self.device)
        self._descend(model, _adamw(model), self.batch)

    def _descend(self, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
        autocast = machine.autocast(self.device, self.subject.precision)
        descend(model, batch, loss, optimizer, autocast=autocast, clip=CLIP)

    def step(self) -> None:
        """One training step."""
        self._descend(self.model, self.optimizer, self.batch)

    def facts(self) -> dict[str, Any]:
        """What does not vary: parameters, FLOPs of a step, bytes of state and of peak memory, kernels."""
        found: dict[str, Any] = {
            "params": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "peak_memory_bytes": self.peak_bytes,
            "kernels": self.kernels,
        }
        if isinstance(self.model, Model):
            autocast = machine.autocast(self.device, self.subject.precision)
            found["flops_per_step"] = sizing.training_flops(self.model, self.batch, loss, autocast=autocast)
            found["state_bytes"] = self._state_bytes() if self.subject.role == "lm" else None
        return found

    def _state_bytes(self) -> int | None:
        return sizing.recurrent_state_bytes(self.subject.build("meta"), self.subject.length)  # type: ignore[arg-type]

    def train(self, seconds: float) -> list[float]:
        """Seconds of each step of a turn, behind one that is not counted."""
        self.model.train()
        return self._turn(self.step, seconds)

    def prefill(self, seconds: float) -> list[float]:
        """Seconds of reading the whole batch, without gradients."""
        self.model.eval()

        def read() -> None:
            with torch.no_grad(), machine.autocast(self.device, self.subject.precision):
                self.model(self.batch)
            machine.synchronize(self.device)

        return self._turn(read, seconds)

    def _turn(self, work: Any, seconds: float) -> list[float]:
        work()
        found: list[float] = []
        while len(found) < LEAST or sum(found) < seconds:
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
        with torch.no_grad(), machine.autocast(self.device, self.subject.precision):
            try:
                model, state = self._decoding.get(context) or self._read(context)
            except Unsupported:
                return None
            found = []
            for _ in range(DECODED):
                start = time.perf_counter()
                _, state = model.extend(token, state)
                machine.synchronize(self.device)
                found.append(time.perf_counter() - start)
        self._decoding[context] = model, state
        return found[DECODED // 4 :]

    def _read(self, context: int) -> tuple[Model, State]:
        """A model with room for turns, and its state after `context` tokens."""
        model = self.subject.longer(context + 64 * DECODED).build(self.device)
        assert isinstance(model, Model)
        model.eval()
        tokens = self.subject.longer(context).example(1).tensors(self.device).inputs
        return model, model.extend(tokens, model.init_state(1))[1]

    def matmul(self) -> float:
        """FLOP/s of a large matrix product in the subject's precision."""
        dtype = torch.bfloat16 if self.subject.precision == "bf16" else torch.float32
        return machine.matmul_speed(self.device, dtype)


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)


def serve(subject: Subject, threads: int | None, pipe: Connection) -> None:
    """Build the subject and send its facts, then answer requests, (method, arguments), until told None.

    Answers are ("ok", value), ("unsupported", reason) or ("failed", reason).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        found = Bench(peers.match(subject) if subject.peer else subject)
        facts = found.facts() | {"threads": torch.get_num_threads()}
        pipe.send(("ok", facts))
        while (request := pipe.recv()) is not None:
            method, arguments = request
            pipe.send(("ok", getattr(found, method)(*arguments)))
    except EOFError:  # the parent is gone
        return
    except Unsupported as error:
        pipe.send(("unsupported", str(error)))
    except Exception as error:
        pipe.send(("failed", f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]))
    finally:
        pipe.close()
        os._exit(0)  # a peer's own threads must not keep the process


def median(turns: list[list[float]]) -> float:
    """The median over turns of each turn's median."""
    return statistics.median(statistics.median(turn) for turn in turns)
