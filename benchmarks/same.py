"""The same architecture under several names, really trained: how often a board tells the names apart.

Every run has an initialisation of its own, and the batches of its seed, as the rows of a board do. Nothing but luck
differs, so at most 5% of boards should separate anybody: `python benchmarks/same.py` prints how many did.
"""

import argparse
import itertools
import time
from dataclasses import replace

import torch
from rich.progress import track

import tasks
import zoo
from harness import stats
from harness.training.evaluate import evaluate
from harness.training.optimizer import adamw, descend, set_lr
from harness.training.schedule import schedule
from tasks.base import Task
from tasks.parts import Part

WIDTH, STEPS, EXAMPLES, LR = 32, 100, 16, 5e-3


def score(name: str, task: Task, seed: int, initialisation: int) -> float:
    """Bits per byte on 128 test windows after a short training on the batches of `seed`."""
    torch.manual_seed(initialisation)
    model = zoo.build(name, task.role, shape=replace(task.shape, width=WIDTH, depth=2), heads=2)
    optimizer = adamw(model, lr=LR, betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(STEPS):
        set_lr(optimizer, schedule("cosine", (step + 1) / STEPS, warmup=0.1, final=0.1))
        batch = task.batch("train", step, seed, size=EXAMPLES)
        descend(model, [Part(batch)], task.loss, optimizer, autocast=torch.autocast("cpu", enabled=False), clip=1.0)
    return evaluate(model, task, "test", size=64, limit=128)[task.metric.name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="pre_ln")
    parser.add_argument("--boards", type=int, default=20)
    parser.add_argument("--names", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    task, began, number = tasks.build("text", length=32), time.monotonic(), itertools.count(10_000)
    apart, spreads = [], []
    for board in track(range(asked.boards), description="boards"):
        seeds = range(board * asked.seeds, (board + 1) * asked.seeds)
        scores = {
            f"{asked.architecture} {chr(97 + i)}": {s: score(asked.architecture, task, s, next(number)) for s in seeds}
            for i in range(asked.names)
        }
        found = stats.compare(scores, higher_is_better=task.metric.higher_is_better)
        spreads.append((found.variance or 0.0) ** 0.5)
        if found.separated:
            apart.append((board, sorted(found.separated)))
    for board, pairs in apart:
        print(f"board {board}: {', '.join(f'{a} above {b}' for a, b in pairs)}")
    print(f"{len(apart)} of {asked.boards} boards tell {asked.names} names of {asked.architecture} apart,")
    print(f"{asked.seeds} seeds each; sd of a run about {sum(spreads) / len(spreads):.3f} {task.metric.unit};")
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
