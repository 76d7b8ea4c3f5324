"""How long decoding takes, one sequence, token by token, in turn with the reference model."""

import statistics
import time
from typing import NamedTuple

import torch

import zoo
from harness import machine
from harness.isolation.beat import beat
from harness.training.reference import ARCHITECTURE, DEPTH, OPTIONS, WIDTH, ratio
from tasks.base import Task
from zoo.contract import Model, Shape, State

TOKENS, ROUNDS = 32, 3
"""Tokens that each of the two models decodes in a turn, the first quarter of them uncounted; and turns."""


class _Seconds(NamedTuple):
    """Of each counted token, turn by turn."""

    ours: list[list[float]]
    reference: list[list[float]]


def decode_time(model: Model, task: Task, *, device: torch.device, precision: str) -> tuple[float, float] | None:
    """Seconds of a token, and how many times as fast as the reference's that is; None where nothing is decoded.

    Tokens are decoded behind a context as long as the task's inputs leave room for, in the precision of training.
    The reference is `harness.training.reference`'s, and takes turns: each ratio is of neighbours in time.
    """
    if model.role != "lm" or not model.traits.resumable or task.shape.vocab is None:
        return None
    length = task.shape.length
    shape = Shape(length, task.shape.outputs, vocab=task.shape.vocab, width=WIDTH, depth=DEPTH)
    inputs = torch.as_tensor(task.batch("valid", 0, 0, size=1).inputs, device=device)
    training, found = model.training, _Seconds([], [])
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(0)
        reference = zoo.build(ARCHITECTURE, "lm", shape=shape, **OPTIONS).to(device)
        models = model.eval(), reference.eval()
        with machine.autocast(device, precision):
            starts = [each.extend(inputs[:, : max(1, length - TOKENS)], each.init_state(1))[1] for each in models]
            for _ in range(ROUNDS):
                for each, start, times in zip(models, starts, found, strict=True):
                    beat()
                    times.append(time_tokens(each, inputs[:, :1], start, min(TOKENS, length - 1), device)[0])
    model.train(training)
    return statistics.median(statistics.median(turn) for turn in found.ours), ratio(*found)


def time_tokens(
    model: Model, token: torch.Tensor, state: State, tokens: int, device: torch.device
) -> tuple[list[float], State]:
    """Seconds of each of so many decoded tokens but the first quarter, and the state after all."""
    found = []
    for _ in range(tokens):
        start = time.perf_counter()
        _, state = model.extend(token, state)
        machine.synchronize(device)
        found.append(time.perf_counter() - start)
    return found[tokens // 4 :], state
