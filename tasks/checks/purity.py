"""Examples are a function of split, id and seed; no split shares any; the fingerprint knows them apart."""

import importlib
import os
import pickle
import subprocess
import sys
from collections import Counter
from typing import Any, Literal, get_args, get_origin

import numpy as np

from tasks import registry
from tasks.base import SPLITS, DataError, Split, Task
from tasks.checks.randomness import global_states, randomness
from tasks.checks.subject import CAP, Subject, rows, some
from zoo.check_result import CheckResult, failed, skipped, within
from zoo.types import Batch


def check_purity(subject: Subject) -> CheckResult:
    """An example is a function of split, id and seed: again, in any order and company, in another process."""
    if subject.missing:
        return skipped("purity", subject.missing)
    task, first = subject.task, {}
    for split in SPLITS:
        ids = some(task, split, 8)
        with randomness(2) as before:
            first[split] = together = rows(task.examples(split, ids, 1))
            if global_states() != before:
                return failed("purity", f"{split}: global random numbers (random, numpy or torch) are drawn or seeded")
        with randomness(3):
            again = task.examples(split, ids, 1)
            if rows(again) != together:
                return failed("purity", f"{split}: other examples after the global generators were seeded otherwise")
        _scribble(again)
        company = np.concatenate([ids, ids[::-1], some(task, split, 40)])
        ways = {
            "when asked for again": rows(task.examples(split, ids, 1)),
            "in reversed order": rows(task.examples(split, ids[::-1], 1))[::-1],
            "when each is asked for alone": [rows(task.examples(split, ids[[i]], 1))[0] for i in range(len(ids))],
            "in other company": rows(task.examples(split, company, 1))[: len(ids)],
            "from a task built anew": rows(subject.build().examples(split, ids, 1)),
        }
        for way, found in ways.items():
            if found != together:
                return failed("purity", f"{split}: other examples {way}")
    elsewhere = _in_another_process(subject)
    if isinstance(elsewhere, str):
        return CheckResult("purity", "passed", note=elsewhere)
    different = [split for split in SPLITS if elsewhere[split] != first[split]]
    if different:
        return failed("purity", f"{', '.join(different)}: other examples in another process")
    return CheckResult("purity", "passed")


def check_seed(subject: Subject) -> CheckResult:
    """It changes examples, or their order, in training, and nothing elsewhere."""
    if subject.missing:
        return skipped("seed", subject.missing)
    task = subject.task
    for split in SPLITS[1:]:
        ids = some(task, split, 40)
        if rows(task.examples(split, ids, 0)) != rows(task.examples(split, ids, 1)):
            return failed("seed", f"changes examples of {split}; it may matter in train only")
    ids = some(task, "train", 40)
    fresh = rows(task.examples("train", ids, 0)) != rows(task.examples("train", ids, 1))
    one, other = (rows(task.batch("train", 0, seed, size=64)) for seed in (0, 1))
    if one == other:
        return failed("seed", "two seeds give the same training examples in the same order")
    return CheckResult("seed", "passed", note="gives other training examples" if fresh else "gives another order")


def check_splits(subject: Subject) -> CheckResult:
    """No example is in two splits: all of them are compared, or 20,000 of a split."""
    if subject.missing:
        return skipped("splits", subject.missing)
    task = subject.task
    where: dict[bytes, tuple[Split, int]] = {}
    shared: Counter[tuple[Split, Split]] = Counter()
    example = ""
    for split in SPLITS:
        endless = task.count(split) is None
        for seed in (0, 1) if endless else (0,):
            ids = task.evaluation_ids(split, CAP // 4 if endless else CAP)
            for part in np.array_split(ids, max(1, len(ids) // 2500)):
                for i, row in zip(part.tolist(), rows(task.examples(split, part, seed)), strict=True):
                    other, j = where.setdefault(row, (split, i))
                    if other != split:
                        shared[other, split] += 1
                        example = example or f"{split} {i} is {other} {j}"
    if shared:
        counts = ", ".join(f"{n} of {b} stand in {a}" for (a, b), n in shared.items())
        return within("splits", sum(shared.values()), 0, f"{counts}; such as {example}")
    return within("splits", 0, 0, f"among {len(where)} different examples")


def check_fingerprint(subject: Subject) -> CheckResult:
    """The same when built again and after data was read; another under an option that changes examples."""
    one = subject.build().fingerprint
    if not isinstance(one, str) or not one:
        return failed("fingerprint", f"must be text, got {one!r}")
    if subject.missing:
        return skipped("fingerprint", subject.missing)
    before = _few(subject.task)
    if subject.task.fingerprint != one or subject.build().fingerprint != one:
        return failed("fingerprint", "another when built again, or after data was read")
    tried = []
    for option in subject.entry.options:
        value = subject.options.get(option.name, option.default)
        for other in _others(value, option.annotation):
            try:
                task = subject.build(**{option.name: other})
                changed = _few(task) != before
            except (DataError, ValueError):
                continue
            tried.append(option.name)
            if changed and task.fingerprint == one:
                return failed("fingerprint", f"the same with {option.name}={other}, which gives other examples")
            break
    return CheckResult("fingerprint", "passed", len(tried), note=f"options varied: {', '.join(tried) or 'none'}")


def _scribble(batch: Batch) -> None:
    """Overwrite the arrays, in case they are the task's own store."""
    for array in batch.arrays().values():
        if isinstance(array, np.ndarray) and array.flags.writeable:
            array.fill(0)


def _in_another_process(subject: Subject) -> dict[Split, list[bytes]] | str:
    """The examples of `check_purity` from a fresh process, or why there is none."""
    module, origin = subject.entry.make.__module__, subject.entry.origin
    plugin = origin if module.startswith("zoobench_plugin_") else None
    asked = pickle.dumps((plugin, module, subject.entry.name, subject.options))
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", "from tasks.checks.purity import answer; answer()"],
        input=asked,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "7"},
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"in another process: {''.join(last)}")
    found: dict[Split, list[bytes]] | str = pickle.loads(done.stdout)
    return found


def answer() -> None:
    """The other process of `check_purity`: reads which task on standard input, writes the rows of its examples."""
    from zoo.registry import load_plugin

    plugin, module, name, options = pickle.loads(sys.stdin.buffer.read())
    output, sys.stdout = sys.stdout.buffer, sys.stderr  # what the task prints is not part of the answer
    if plugin is not None:
        load_plugin(plugin)
    else:
        try:
            importlib.import_module(module)
        except ImportError:
            output.write(pickle.dumps(f"not tried in another process, which cannot import {module}"))
            return
    task = registry.build(name, **options)
    output.write(pickle.dumps({split: rows(task.examples(split, some(task, split, 8), 1)) for split in SPLITS}))


def _few(task: Task) -> list[list[bytes]]:
    return [rows(task.examples(split, some(task, split, 8), 0)) for split in ("train", "test")]


def _others(value: Any, annotation: Any) -> list[Any]:
    """Other values that an option may take, likely ones first."""
    if get_origin(annotation) is Literal:
        return [choice for choice in get_args(annotation) if choice != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [n for n in (value + 1, 2 * value, value - 1, value // 2) if n > 0 and n != value]
    if isinstance(value, float):
        return [value / 2, 2 * value, value + 1]
    return [3, 64] if value is None and int in get_args(annotation) else []
