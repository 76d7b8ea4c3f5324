"""What the harness adds to training: its loop beside the same steps written by hand, and two workers beside one.

    python benchmarks/training_loop.py [--rounds 3] FOLDER

Both train the same model on the same batches on one thread, step by step in turn, and are charged the CPU seconds of
the whole process: making and hashing batches, watching, logging, counting FLOPs and the reference included. Prints the
medians over rounds and writes training_loop.md into FOLDER.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
import yaml

import harness
from harness import machine
from harness.plan.expand import expand
from harness.plan.sizes import build_model, examples_of, resolve_size
from harness.records.spec import RunSpec
from harness.suite.load import load
from harness.training.optimizer import adamw
from harness.training.run import Run
from harness.training.train import train_steps
from tasks.base import Task
from zoo.size import Size

STEPS = 200
SUITE: dict[str, Any] = {
    "suite": "harness",
    "architectures": ["pre_ln"],
    "tasks": [{"text": {"corpus": "wikipedia_xml", "length": 256}}],
    "budget": {"stop": {"steps": STEPS}},
    "seeds": [0, 1],
    "model": {"depth": 4, "heads": 4, "width": 256},
    "train": {"batch_tokens": 2048, "lr": 1e-3, "weight_decay": 0.1},
    "evaluate": {"every": 0, "valid": 8, "test": 8},
}


class ByHand:
    """The loop anybody would write, a step at a time."""

    def __init__(self, spec: RunSpec, task: Task, size: Size) -> None:
        assert spec.train is not None
        self.spec, self.task, self.device, self.seconds = spec, task, machine.pick(), 0.0
        self.precision = machine.resolve_precision(spec.train.precision, self.device)
        self.model = build_model(spec, task, size).to(self.device).train()
        self.optimizer = adamw(self.model, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
        self.index = 0

    def step(self) -> None:
        """Make a batch and train on it."""
        began = time.process_time()
        batch = self.task.batch("train", self.index, self.spec.seed, size=examples_of(self.spec, self.task))
        batch = batch.tensors(self.device)
        with machine.autocast(self.device, self.precision):
            logits = self.model(batch)
        self.task.loss(logits, batch).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.index += 1
        self.seconds += time.process_time() - began


def in_turn(spec: RunSpec, task: Task, size: Size) -> tuple[float, float]:
    """CPU seconds of a run's steps by hand and by the harness, each step of the one before one of the other."""
    hand = ByHand(spec, task, size)
    hand.step()  # loads and compiles
    hand.seconds, theirs = 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        run = Run(spec, task, size, Path(folder), lambda event: None)
        began = time.process_time()

        def turn() -> bool:
            nonlocal theirs, began
            theirs += time.process_time() - began
            hand.step()
            began = time.process_time()
            return False

        train_steps(run, turn, checkpoint=1e9)
        theirs += time.process_time() - began
    return hand.seconds, theirs


def overhead(rounds: int, suite: Path) -> tuple[float, float, float]:
    """Medians of CPU seconds by hand and by the harness, and of their ratio within a round."""
    torch.set_num_threads(1)
    loaded = load(suite)
    spec, task = expand(loaded)[0], loaded.tasks[0].task
    size = resolve_size(spec, task)
    hands, harnesses = zip(*[in_turn(spec, task, size) for _ in range(rounds)], strict=True)
    ratios = [theirs / ours for ours, theirs in zip(hands, harnesses, strict=True)]
    return statistics.median(hands), statistics.median(harnesses), statistics.median(ratios)


def scaling(suite: Path) -> tuple[float, float]:
    """Tokens/s of training, summed over the runs under way: of one 1-thread worker, and of two."""

    cores = sorted(os.sched_getaffinity(0))

    def speed(workers: int) -> float:
        # In a process of its own: what it starts inherits its cores, from which the runner derives one thread a worker.
        spawn, given = multiprocessing.get_context("spawn"), (0, cores[:workers])
        with ProcessPoolExecutor(1, mp_context=spawn, initializer=os.sched_setaffinity, initargs=given) as pool:
            return pool.submit(_speed, suite, workers).result()

    return speed(1), speed(2)


def _speed(suite: Path, workers: int) -> float:
    with tempfile.TemporaryDirectory() as root:
        records = harness.run(suite, root=Path(root), workers=workers).records
    return workers * statistics.mean(record.speed.train_tokens_per_s for record in records)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "harness.yaml"
        suite.write_text(yaml.safe_dump(SUITE))
        alone, together = scaling(suite)
        hand, harness, ratio = overhead(asked.rounds, suite)
    tokens = STEPS * SUITE["train"]["batch_tokens"]
    text = "\n".join(
        [
            f"pre_ln, width 256, 4 layers, 256×8, {STEPS} steps in turn, one thread, on {machine.hardware('cpu')}:",
            "",
            "| | tokens/s |",
            "|---|---:|",
            f"| the loop by hand, of CPU time | {tokens / hand:,.0f} |",
            f"| the loop of the harness, of CPU time | {tokens / harness:,.0f} |",
            f"| one worker | {alone:,.0f} |",
            f"| two workers | {together:,.0f} |",
            "",
            f"The harness takes {100 * (ratio - 1):+.1f} % of the CPU seconds by hand; two workers do "
            f"{together / alone:.2f} times the work of one ({os.cpu_count()} cores).",
            "",
        ]
    )
    print(text)
    asked.folder.mkdir(parents=True, exist_ok=True)
    (asked.folder / "training_loop.md").write_text(text)


if __name__ == "__main__":
    main()
