"""What the harness adds to training: `harness.train` beside the same loop written by hand, and two workers beside one.

    python benchmarks/training_loop.py [--rounds 3] FOLDER

Both loops train the same model on the same batches, in turn, on one thread, and are timed from before their first step
to behind their last, data, logging and hashing included; what the harness trains of its reference in between is on
no clock. Prints the medians and writes training_loop.md into FOLDER.
"""

from __future__ import annotations

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

from harness import machine
from harness.execute import runner
from harness.plan.expand import expand
from harness.plan.sizes import build_model, examples_of, resolve_size
from harness.records.spec import RunSpec
from harness.suite.load import load
from harness.training.train import Run
from tasks.base import Task
from zoo.size import Size

STEPS = 40
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


def by_hand(spec: RunSpec, task: Task, size: Size) -> float:
    """Seconds of the loop anybody would write, batches made when they are needed off the clock included."""
    device = machine.pick()
    model = build_model(spec, task, size).to(device).train()
    decay, rest = [], []
    for parameter in model.parameters():
        (decay if parameter.ndim > 1 else rest).append(parameter)
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
    batches = [task.batch("train", index, spec.seed, size=examples_of(spec, task)) for index in range(STEPS)]
    precision = machine.resolve_precision(spec.train.precision, device)
    start = time.perf_counter()
    for batch in batches:
        batch = batch.tensors(device)
        with machine.autocast(device, precision):
            logits = model(batch)
        loss = task.loss(logits, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - start


def by_harness(spec: RunSpec, task: Task, size: Size, folder: Path) -> float:
    """Seconds of the harness's loop over the same steps, on its own clock: the steps of the reference are apart."""
    run = Run(spec, task, size, folder, lambda event: None)
    run.train(lambda: False, checkpoint=1e9)
    return run.progress.used.seconds


def overhead(rounds: int, suite: Path) -> tuple[float, float, float]:
    """Medians of seconds by hand and by the harness, and of their ratio within a round."""
    torch.set_num_threads(1)
    spec = expand(load(suite))[0]
    task = spec.build_task()
    size = resolve_size(spec, task)
    pairs = []
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            turns = [lambda: by_hand(spec, task, size), lambda: by_harness(spec, task, size, Path(folder))]
            found = {turn: turns[turn]() for turn in ((0, 1) if number % 2 else (1, 0))}
        pairs.append((found[0], found[1]))
    hands, harnesses = zip(*pairs[1:], strict=True)  # the first round warms up
    return (
        statistics.median(hands),
        statistics.median(harnesses),
        statistics.median(theirs / ours for ours, theirs in pairs[1:]),
    )


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
        records = runner.run(suite, root=Path(root), workers=workers).records
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
            f"pre_ln, width 256, 4 layers, 256×8, {STEPS} steps, one thread, on {machine.hardware('cpu')}:",
            "",
            "| | tokens/s |",
            "|---|---:|",
            f"| the loop by hand | {tokens / hand:,.0f} |",
            f"| `harness.train` | {tokens / harness:,.0f} |",
            f"| one worker | {alone:,.0f} |",
            f"| two workers | {together:,.0f} |",
            "",
            f"The harness takes {100 * (ratio - 1):+.1f} % of the time by hand; two workers do {together / alone:.2f} "
            f"times the work of one ({os.cpu_count()} cores).",
            "",
        ]
    )
    print(text)
    asked.folder.mkdir(parents=True, exist_ok=True)
    (asked.folder / "training_loop.md").write_text(text)


if __name__ == "__main__":
    main()
