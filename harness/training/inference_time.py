"""How long a trained model takes to decode a token, or to answer one example, in turn with the reference model."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

import zoo
from harness import machine
from harness.isolation.beat import beat
from harness.training.reference import ARCHITECTURE, DEPTH, OPTIONS, WIDTH, ratio
from tasks.base import Task
from zoo.contract import Batch, Model, State
from zoo.types import LABELLED

TIMED, ROUNDS = 32, 3
"""Tokens or answers of each of the two models in a turn, the first quarter of them uncounted; and turns."""


def inference_time(model: Model, task: Task, *, device: torch.device, precision: str) -> dict[str, Any]:
    """The fields of `Speed` that say it: `decode_…` of language models, `latency_…` of classifiers, none of others.

    `…_seconds` are of a token or an answer, `…_relative` how many times as fast that is as the reference's. Tokens are
    decoded behind a context as long as the task's inputs leave room for; an answer is to one example, alone. All is in
    the precision of training. The reference is `harness.training.reference`'s, and takes turns: each ratio is of
    neighbours in time.
    """
    decodes = model.role == "lm" and model.traits.resumable and task.shape.vocab is not None
    if not decodes and model.role not in LABELLED:
        return {}
    shape = replace(task.shape, width=WIDTH, depth=DEPTH)
    example, training = task.batch("valid", 0, 0, size=1).tensors(device), model.training
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(0)
        reference = zoo.build(ARCHITECTURE, model.role, shape=shape, **OPTIONS).to(device)
        with machine.autocast(device, precision):
            timers = [(_decoding if decodes else _answering)(each.eval(), example) for each in (model, reference)]
            for _ in range(ROUNDS):
                for timer, times in zip(timers, (ours, theirs), strict=True):
                    beat()
                    times.append(timer())
    model.train(training)
    name = "decode" if decodes else "latency"
    seconds = statistics.median(statistics.median(turn) for turn in ours)
    return {f"{name}_seconds": seconds, f"{name}_relative": ratio(ours, theirs)}


def _decoding(model: Model, example: Batch) -> Callable[[], list[float]]:
    tokens, length = example.inputs, model.shape.length
    start = model.extend(tokens[:, : max(1, length - TIMED)], model.init_state(1))[1]
    return lambda: time_tokens(model, tokens[:, :1], start, min(TIMED, length - 1), tokens.device)[0]


def _answering(model: Model, example: Batch) -> Callable[[], list[float]]:
    return lambda: _timed(lambda: model(example), TIMED, example.inputs.device)


def time_tokens(
    model: Model, token: torch.Tensor, state: State, tokens: int, device: torch.device
) -> tuple[list[float], State]:
    """Seconds of each of so many decoded tokens but the first quarter, and the state after all."""

    def step() -> None:
        nonlocal state
        _, state = model.extend(token, state)

    return _timed(step, tokens, device), state


def _timed(step: Callable[[], object], count: int, device: torch.device) -> list[float]:
    """Seconds of each of so many steps but the first quarter."""
    found = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        machine.synchronize(device)
        found.append(time.perf_counter() - start)
    return found[count // 4 :]
