"""What lm_eval may not touch while it works here.

lm_eval draws from the global generators, prints, and shows bars of its own. Here the generators are as they were
afterwards, nothing is printed, and what its bars would show is reported.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from harness.isolation.beat import beat
from harness.lm_eval.questions.files import VARIABLE
from tasks.checks.randomness import randomness

INTERVAL = 0.5
"""Seconds between two reports of a bar."""


@contextmanager
def isolated(data: Path | None, seed: int, report: Callable[[str], None], *, hub: bool = False) -> Iterator[None]:
    """Run lm_eval under `seed`, with `data` as the folder of the tasks that read files, and its bars as reports.

    Without `hub` no network is used.
    """
    environment = {"DISABLE_MULTIPROC": "1"}  # resampling in this process, because a fork beside threads can hang
    if data is not None:
        environment[VARIABLE] = str(data)
    network = nullcontext() if hub else _offline()
    with patch.dict(os.environ, environment), network, _random_state(seed), _log_levels(), _bars(report):
        yield


@contextmanager
def _offline() -> Iterator[None]:
    """The hub's packages use what is in their cache."""
    from datasets import config
    from huggingface_hub import constants

    with (
        patch.dict(os.environ, {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}),
        patch.object(constants, "HF_HUB_OFFLINE", True),
        patch.multiple(config, HF_HUB_OFFLINE=True, HF_DATASETS_OFFLINE=True),
    ):
        yield


@contextmanager
def _random_state(seed: int) -> Iterator[None]:
    """The global generators seeded inside, and as they were outside."""
    with randomness(seed), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)  # those of CUDA as well
        yield


@contextmanager
def _log_levels() -> Iterator[None]:
    """lm_eval's warnings without its chatter, the hub's errors without its retries."""
    levels = {"lm_eval": logging.WARNING, "huggingface_hub": logging.ERROR, "datasets": logging.ERROR}
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    tasks = logging.getLogger("lm_eval.api.task")
    tasks.addFilter(_is_no_advice)
    try:
        yield
    finally:
        tasks.removeFilter(_is_no_advice)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _is_no_advice(record: logging.LogRecord) -> bool:
    """False for what lm_eval advises about every task that makes its own documents."""
    return "Custom kwargs can be passed" not in record.getMessage()


@contextmanager
def _bars(report: Callable[[str], None]) -> Iterator[None]:
    """No bar is drawn; the progress of those that are counted on is reported, at most every `INTERVAL` seconds."""
    from lm_eval.api.task import tqdm

    init, out, last = tqdm.__init__, sys.stdout, 0.0

    def undrawn(self: Any, *args: Any, **options: Any) -> None:
        init(self, *args, **{**options, "disable": True})
        self.title = options.get("desc") or "questions"

    def counted(self: Any, n: float | None = 1) -> None:
        nonlocal last
        self.n += n or 0
        beat()
        if self.total and time.monotonic() >= last + INTERVAL:
            last = time.monotonic()
            with redirect_stdout(out):
                report(f"{self.title}: {self.n} of {self.total}")

    with patch.object(tqdm, "__init__", undrawn), patch.object(tqdm, "update", counted):
        yield
