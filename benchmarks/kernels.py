"""What each compiled loop buys: whole training steps with it and without it, in turn.

    python benchmarks/kernels.py [--only OP ...] FOLDER

A loop stays in `zoo.ops.forms.CPU` only if it makes a training step of some architecture at least 1.15 times as fast,
at 256×8 or 2048×2. Prints the table, and writes kernels.md into FOLDER. Some fifteen minutes on two quiet cores.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import torch

from harness import machine
from harness.bench.subject import Subject, loss
from harness.training.optimizer import descend
from tasks.parts import Part
from zoo.ops import forms

USERS: dict[str, tuple[str, ...]] = {
    "attention": ("pre_ln", "transformer_pp"),
    "cauchy": ("s4",),
    "delta_rule": ("delta_net", "gated_delta_net"),
    "dplr": ("rwkv7",),
    "gated_rms": ("mamba2",),
    "h3": ("h3",),
    "linear_attention": ("retnet", "mamba2"),
    "linear_attention, per channel": ("gla", "rwkv6"),
    "long_convolution": ("s4", "s4d", "hyena"),
    "lsh_attention": ("reformer",),
    "positive": ("linear_transformer",),
    "rms": ("transformer_pp", "gla", "retnet"),
    "selective_scan": ("mamba",),
    "short_convolution": ("hyena", "mamba", "delta_net", "mamba2"),
    "slstm": ("slstm",),
    "wkv4": ("rwkv4",),
}
"""Architectures whose training step a loop should speed up."""
LENGTHS = ((256, 8), (2048, 2))
SECONDS, PAIRS = 4.0, 8
"""A ratio is of at least so many pairs of steps, and of so many seconds, up to four times that."""


def training_step(name: str, length: int, batch: int) -> Callable[[], float]:
    """A function that trains one step and returns its seconds. The learning rate is 0: every step is the same work."""
    device = machine.pick()
    precision = machine.resolve_precision("auto", device)
    subject = Subject(name, length=length, batch=batch, precision=precision)
    machine.warm_up(device)
    torch.manual_seed(0)
    model, example = subject.build(device), subject.example().tensors(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0, fused=True)

    def step() -> float:
        start = time.perf_counter()
        descend(model, [Part(example)], loss, optimizer, autocast=machine.autocast(device, precision), clip=1.0)
        return time.perf_counter() - start

    return step


def gain(op: str, name: str, length: int, batch: int) -> tuple[float, float, float]:
    """How many times as fast a step is with the loop as without it: the median over pairs of steps, and quartiles."""
    step = training_step(name, length, batch)
    others = {other: form for other, form in forms.CPU.items() if not other.startswith(op)}

    def without() -> float:
        with patch.object(forms, "CPU", others):
            return step()

    step(), without()
    start, ratios = time.perf_counter(), []
    while (spent := time.perf_counter() - start) < SECONDS or (len(ratios) < PAIRS and spent < 4 * SECONDS):
        ours, theirs = step(), without()
        ratios.append(theirs / ours)
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return middle, low, high


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=USERS, action="append", metavar="OP")
    asked = parser.parse_args()
    settings = [f"{length}×{batch}" for length, batch in LENGTHS]
    lines = [f"| loop | architecture | {' | '.join(settings)} |", "|---|---|" + "---:|" * len(settings)]
    print("\n".join(lines))
    for op in asked.only or USERS:
        for name in USERS[op]:
            cells = []
            for length, batch in LENGTHS:
                # A process each: what one leaves in memory would slow the next.
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    middle, low, high = pool.submit(gain, op, name, length, batch).result()
                cells.append(f"{middle:.2f} ({low:.2f}–{high:.2f})")
            lines.append(f"| {op} | {name} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    asked.folder.mkdir(parents=True, exist_ok=True)
    (asked.folder / "kernels.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
