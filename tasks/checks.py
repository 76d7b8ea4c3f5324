"""The contract of tasks, as checks that run on any task by name, a plug-in's too: `tasks.checks.run("mqar")`.

A task is built with the options of its `smoke` difficulty, or its defaults where it has none. Where its data is not
here, what needs data is skipped. torch is imported only by the checks that score answers.
"""

from __future__ import annotations

import importlib
import math
import os
import pickle
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from hashlib import blake2b
from inspect import Parameter
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import numpy as np

from tasks import registry
from tasks.base import SPLITS, Baseline, DataError, Ids, Split, Task, Totals, add_totals, scores
from zoo.outcome import Outcome, skipped, within
from zoo.terms import ROLES, Batch

if TYPE_CHECKING:
    from torch import Tensor

CAP = 20_000
"""Examples of a split that are compared with those of the others."""
SCORED = 500
"""Test examples that are scored."""
NUMBERS = 200_000_000
"""Logits that scoring makes, at most; 1/20 of it at a time."""
STOPS = ("tokens", "steps", "flops", "seconds")
OWN = ("smoke", "small", "paper")
"""The difficulties that built-in tasks have."""


class Subject:
    """One task under its options."""

    def __init__(self, name: str, options: dict[str, Any] | None = None) -> None:
        self.entry = registry.get(name)
        self.difficulties = dict(self.entry.make.difficulties)
        smoke = self.difficulties.get("smoke")
        self.options = dict(options or (smoke.options if smoke else {}))

    def build(self, **changes: Any) -> Task:
        """A new task, under the options with `changes`."""
        return registry.build(self.entry.name, **{**self.options, **changes})

    @cached_property
    def task(self) -> Task:
        """The task that most checks look at."""
        return self.build()

    @property
    def built_in(self) -> bool:
        """Whether it is one of the benchmark's own."""
        return any(self.entry.make.__module__.startswith(f"tasks.{family}.") for family in registry.FAMILIES)

    @cached_property
    def missing(self) -> str:
        """Why its data cannot be had; empty where it is here."""
        try:
            self.build().examples("test", np.arange(1, dtype=np.int64), 0)
        except DataError as error:
            return str(error)
        except Exception:  # each check says so by itself
            return ""
        return ""

    @cached_property
    def test(self) -> list[Batch]:
        """The test examples that are scored, in batches of a moderate number of logits."""
        return list(self.task.evaluation("test", size=self.size, limit=self.limit))

    @property
    def limit(self) -> int:
        """How many test examples are scored."""
        return max(32, min(SCORED, NUMBERS // self._numbers))

    @property
    def size(self) -> int:
        """Examples in a batch that is scored."""
        return max(1, min(64, NUMBERS // 20 // self._numbers))

    @property
    def _numbers(self) -> int:
        """Logits for one example."""
        shape, role = self.task.shape, self.task.role
        steps = {"classify": 1, "retrieve": 1, "seq2seq": shape.target_length or 1}.get(role, shape.length)
        return steps * shape.outputs


def rows(batch: Batch) -> list[bytes]:
    """A hash of each example: of the names, types and bytes of its arrays."""
    arrays = [(name, np.ascontiguousarray(array)) for name, array in batch.arrays().items()]
    hashes = []
    for i in range(len(batch)):
        state = blake2b(digest_size=16)
        for name, array in arrays:
            state.update(f"{name} {array.dtype} {array.shape[1:]} ".encode())
            state.update(array[i].tobytes())
        hashes.append(state.digest())
    return hashes


def some(task: Task, split: Split, n: int) -> Ids:
    """At most `n` ids of a split, in no order, the first and the last among them; a far one where there is no end."""
    total = task.count(split)
    last = 1_000_003 if total is None else total - 1
    ids = dict.fromkeys(int(i) for i in (min(5, last), 0, *(31 * i % (last + 1) for i in range(1, n - 2)), last))
    return np.array(list(ids), dtype=np.int64)


def check_options(subject: Subject) -> Outcome:
    """It builds; every option has an annotation; unknown options, and whole numbers that cannot be, are refused."""
    task = subject.task
    if task.role not in ROLES:
        return _failed("options", f"role {task.role!r} is not one of {', '.join(ROLES)}")
    try:
        subject.build(no_such_option=1)
    except TypeError:
        pass
    else:
        return _failed("options", "an option it does not have is accepted")
    for option in subject.entry.options:
        if option.annotation is Parameter.empty:
            return _failed("options", f"option {option.name} has no annotation, by which suites check its values")
        if int not in (option.annotation, *get_args(option.annotation)):
            continue
        try:
            odd = subject.build(**{option.name: -1})
        except ValueError:
            continue
        try:
            if odd.shape and not subject.missing:
                odd.examples("test", np.arange(2, dtype=np.int64), 0)
        except Exception as error:
            why = f"{option.name}=-1 is accepted, and then {_named(error)}; refuse it in __init__ with a ValueError"
            return _failed("options", why)
    return Outcome("options", "passed", len(subject.entry.options), note="options")


def check_metric(subject: Subject) -> Outcome:
    """Its name is among the scores, chance is finite, and right answers score better than chance and wrong answers."""
    metric, task = subject.task.metric, subject.task
    if not isinstance(metric.higher_is_better, bool):
        return _failed("metric", f"higher_is_better must be True or False, not {metric.higher_is_better!r}")
    if not isinstance(metric.chance, (int, float)) or not math.isfinite(metric.chance):
        return _failed("metric", f"chance must be a finite number, not {metric.chance!r}")
    if subject.missing:
        return skipped("metric", subject.missing)
    right = _score(subject, _right)
    if metric.name not in right:
        return _failed("metric", f"{metric.name!r} is not among the scores that totals returns: {', '.join(right)}")
    wrong = _score(subject, _wrong)
    best, worst = right[metric.name], wrong[metric.name]
    if not all(map(math.isfinite, (best, worst, right.get("loss", 0.0)))):
        return _failed("metric", f"right answers score {best:g}, wrong ones {worst:g}: not finite")
    for what, value in (("wrong answers", worst), ("chance", metric.chance)):
        if task.shape.outputs > 1 and not _better(task, best, value):
            higher = "higher" if metric.higher_is_better else "lower"
            note = f"right answers are no better than {what}, though {higher} is better; limit: {what}"
            return Outcome("metric", "failed", best, value, note)
    return Outcome("metric", "passed", best, metric.chance, f"{metric.name} of right answers; limit: chance")


def check_purity(subject: Subject) -> Outcome:
    """An example is a function of split, id and seed: again, in any order and company, in another process."""
    if subject.missing:
        return skipped("purity", subject.missing)
    task, first = subject.task, {}
    for split in SPLITS:
        ids = some(task, split, 8)
        with _randomness(2) as before:
            first[split] = together = rows(task.examples(split, ids, 1))
            if _global_states() != before:
                return _failed("purity", f"{split}: global random numbers (random, numpy or torch) are drawn or seeded")
        with _randomness(3):
            again = task.examples(split, ids, 1)
            if rows(again) != together:
                return _failed("purity", f"{split}: other examples after the global generators were seeded otherwise")
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
                return _failed("purity", f"{split}: other examples {way}")
    elsewhere = _in_another_process(subject)
    if isinstance(elsewhere, str):
        return Outcome("purity", "passed", note=elsewhere)
    different = [split for split in SPLITS if elsewhere[split] != first[split]]
    if different:
        return _failed("purity", f"{', '.join(different)}: other examples in another process")
    return Outcome("purity", "passed")


def check_seed(subject: Subject) -> Outcome:
    """It changes examples, or their order, in training, and nothing elsewhere."""
    if subject.missing:
        return skipped("seed", subject.missing)
    task = subject.task
    for split in SPLITS[1:]:
        ids = some(task, split, 40)
        if rows(task.examples(split, ids, 0)) != rows(task.examples(split, ids, 1)):
            return _failed("seed", f"changes examples of {split}; it may matter in train only")
    ids = some(task, "train", 40)
    fresh = rows(task.examples("train", ids, 0)) != rows(task.examples("train", ids, 1))
    one, other = (rows(task.batch("train", 0, seed, size=64)) for seed in (0, 1))
    if one == other:
        return _failed("seed", "two seeds give the same training examples in the same order")
    return Outcome("seed", "passed", note="gives other training examples" if fresh else "gives another order")


def check_splits(subject: Subject) -> Outcome:
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
            for part in np.array_split(ids, max(1, len(ids) // 500)):
                for i, row in zip(part.tolist(), rows(task.examples(split, part, seed)), strict=True):
                    other, j = where.setdefault(row, (split, i))
                    if other != split:
                        shared[other, split] += 1
                        example = example or f"{split} {i} is {other} {j}"
    if shared:
        counts = ", ".join(f"{n} of {b} stand in {a}" for (a, b), n in shared.items())
        return within("splits", sum(shared.values()), 0, f"{counts}; such as {example}")
    return within("splits", 0, 0, f"among {len(where)} different examples")


def check_shapes(subject: Subject) -> Outcome:
    """Arrays are what role and `shape` promise: dtypes, lengths, tokens below `vocab`, targets below `outputs`."""
    if subject.missing:
        return skipped("shapes", subject.missing)
    task, longest = subject.task, 0
    for split in SPLITS:
        ids = some(task, split, 64)
        batch = task.examples(split, ids, 0)
        for problem in _problems(task, batch, len(ids)):
            return _failed("shapes", f"{split}: {problem}")
        steps = max(batch.inputs.shape[1], 0 if batch.inputs2 is None else batch.inputs2.shape[1])
        longest = max(longest, steps)
        if split == "train" and steps != task.train_length:
            return _failed("shapes", f"train: inputs have {steps} steps, train_length says {task.train_length}")
    if longest != task.shape.length:
        return _failed("shapes", f"inputs have up to {longest} steps, shape.length says {task.shape.length}")
    return Outcome("shapes", "passed", longest, task.shape.length, "steps of the longest input")


def check_fingerprint(subject: Subject) -> Outcome:
    """The same when built again and after data was read; another under an option that changes examples."""
    one = subject.build().fingerprint
    if not isinstance(one, str) or not one:
        return _failed("fingerprint", f"must be text, got {one!r}")
    if subject.missing:
        return skipped("fingerprint", subject.missing)
    before = _few(subject.task)
    if subject.task.fingerprint != one or subject.build().fingerprint != one:
        return _failed("fingerprint", "another when built again, or after data was read")
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
                return _failed("fingerprint", f"the same with {option.name}={other}, which gives other examples")
            break
    return Outcome("fingerprint", "passed", len(tried), note=f"options varied: {', '.join(tried) or 'none'}")


def check_evaluation(subject: Subject) -> Outcome:
    """Batches of any size give the same examples, each once, and totals that add up to the same scores."""
    if subject.missing:
        return skipped("evaluation", subject.missing)
    task = subject.task
    for split in SPLITS[1:]:
        for limit in (50, 203):
            total = task.count(split)
            expected = limit if total is None else min(limit, total)
            one, other = (
                [row for batch in task.evaluation(split, size=size, limit=limit) for row in rows(batch)]
                for size in (7, 64)
            )
            if one != other:
                return _failed("evaluation", f"{split}: batches of 7 give other examples than batches of 64")
            if len(one) != expected:
                return Outcome("evaluation", "failed", len(one), expected, f"examples of {split} at limit {limit}")
    few = min(20, subject.limit)
    whole, parts = (
        _score(subject, _noise, list(task.evaluation("test", size=size, limit=few))) for size in (min(few, 10), 3)
    )
    for name, value in whole.items():
        if not math.isclose(value, parts[name], rel_tol=1e-4, abs_tol=1e-6):
            return Outcome("evaluation", "failed", parts[name], value, f"{name} depends on the size of the batches")
    return Outcome("evaluation", "passed")


def check_baselines(subject: Subject) -> Outcome:
    """At least one; all worse than right answers, which score the best there is; a constant answer beats none."""
    if subject.missing:
        return skipped("baselines", subject.missing)
    task, metric = subject.task, subject.task.metric
    with _randomness(2) as before:
        found = task.baselines(subject.limit)
        if _global_states() != before:
            return _failed("baselines", "global random numbers (random, numpy or torch) are drawn or seeded")
    if not found:
        return _failed("baselines", "none: without one nobody can tell when a score means nothing")
    if len({baseline.name for baseline in found}) < len(found):
        return _failed("baselines", "two have the same name")
    best = _score(subject, _right)[metric.name]
    if best not in ((1.0, 100.0) if metric.higher_is_better else (0.0,)):
        wanted = "1 (or 100)" if metric.higher_is_better else "0"
        return Outcome("baselines", "failed", best, note=f"right answers should score {wanted}, the best there is")
    for baseline in found:
        problem = _implausible(task, baseline, best)
        if problem:
            return Outcome("baselines", "failed", baseline.value, best, f"{baseline.name}: {problem}")
    strongest = (max if metric.higher_is_better else min)(found, key=lambda baseline: baseline.value)
    constant = _score(subject, _constant(subject))[metric.name]
    room = abs(best - strongest.value) * 2 / math.sqrt(len(task.evaluation_ids("test", subject.limit)))
    limit = strongest.value + (room if metric.higher_is_better else -room)
    if _better(task, constant, limit):
        note = f"the commonest training answers beat every baseline ({strongest.name}: {strongest.value:.3g})"
        return Outcome("baselines", "failed", constant, limit, note)
    return Outcome("baselines", "passed", strongest.value, best, f"{strongest.name}; limit: right answers")


def check_difficulties(subject: Subject) -> Outcome:
    """Every difficulty builds, with one end of training and a size; built-in tasks have smoke, small and paper."""
    notes = []
    for name, difficulty in subject.difficulties.items():
        try:
            registry.build(subject.entry.name, **difficulty.options).shape  # noqa: B018
        except DataError as error:
            notes.append(f"{name}: {error}")
        except Exception as error:
            return _failed("difficulties", f"{name}: {_named(error)}")
        stop = dict(difficulty.stop)
        if len(stop) != 1 or set(stop) - set(STOPS) or min(stop.values()) <= 0:
            return _failed("difficulties", f"{name}: stop must be one of {', '.join(STOPS)}, above 0; got {stop}")
        if difficulty.params < 1:
            return _failed("difficulties", f"{name}: params must be at least 1, got {difficulty.params}")
    absent = [name for name in OWN if name not in subject.difficulties]
    if absent and subject.built_in:
        return _failed("difficulties", f"{', '.join(absent)} must be there")
    if not subject.difficulties:
        return skipped("difficulties", f"none; {', '.join(OWN)} are recommended")
    if absent:
        notes.append(f"{', '.join(absent)} are recommended as well")
    note = "; ".join([", ".join(subject.difficulties), *notes])
    return Outcome("difficulties", "passed", len(subject.difficulties), note=note)


CHECKS: dict[str, Callable[[Subject], Outcome]] = {
    "options": check_options,
    "metric": check_metric,
    "purity": check_purity,
    "seed": check_seed,
    "splits": check_splits,
    "shapes": check_shapes,
    "fingerprint": check_fingerprint,
    "evaluation": check_evaluation,
    "baselines": check_baselines,
    "difficulties": check_difficulties,
}


def run(name: str, **options: Any) -> list[Outcome]:
    """Every check on the task called `name`, under `options` or else its `smoke` difficulty's.

    Raises:
        KeyError: unknown task.
    """
    subject = Subject(name, options)
    return [apply(check, subject) for check in CHECKS]


def apply(check: str, subject: Subject) -> Outcome:
    """One check; an error inside it is a failure that says what was raised. Global random state is left as it was."""
    with _randomness(1):
        try:
            return CHECKS[check](subject)
        except Exception as error:  # a plug-in may raise anything
            return _failed(check, _named(error))


def _failed(check: str, note: str) -> Outcome:
    return Outcome(check, "failed", note=note)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _global_states() -> tuple[Any, ...]:
    import torch

    name, keys, *rest = np.random.get_state()
    return random.getstate(), (name, np.asarray(keys).tobytes(), *rest), torch.get_rng_state().numpy().tobytes()


@contextmanager
def _randomness(seed: int) -> Iterator[tuple[Any, ...]]:
    """Seeds the global generators and hands out their states; afterwards they are as they were."""
    import torch

    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.random.default_generator.manual_seed(seed)
    try:
        yield _global_states()
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


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
        [sys.executable, "-c", "from tasks.checks import answer; answer()"],
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


def _problems(task: Task, batch: Batch, n: int) -> Iterator[str]:
    """What is wrong with the arrays of a batch of `n` examples."""
    for name, array in batch.arrays().items():
        if not isinstance(array, np.ndarray):
            yield f"{name} is a {type(array).__name__}, not a NumPy array"
            return
        if len(array) != n or array.ndim < 1:
            yield f"{name} has shape {array.shape} for {n} examples"
            return
    yield from _input_problems(task, "inputs", batch.inputs, "mask", batch.mask)
    if (batch.inputs2 is not None) != (task.role == "retrieve"):
        yield "inputs2 belongs to role retrieve, and to no other"
    elif batch.inputs2 is not None:
        yield from _input_problems(task, "inputs2", batch.inputs2, "mask2", batch.mask2)
    if (batch.decoder_inputs is not None) != (task.role == "seq2seq"):
        yield "decoder_inputs belong to role seq2seq, and to no other"
        return
    yield from _target_problems(task, batch)
    if batch.decoder_inputs is not None:
        yield from _decoder_problems(task, batch)


def _input_problems(task: Task, name: str, inputs: Any, masked: str, mask: Any) -> Iterator[str]:
    shape = task.shape
    if shape.vocab is not None:
        if inputs.ndim != 2 or inputs.dtype != np.int64:
            yield f"{name} must be int64 (B, T), found {inputs.dtype} {inputs.shape}"
            return
        yield from _outside(name, inputs, "vocab", shape.vocab)
    elif inputs.ndim != 3 or inputs.dtype != np.float32 or inputs.shape[2] != shape.features:
        yield f"{name} must be float32 (B, T, {shape.features}), found {inputs.dtype} {inputs.shape}"
    elif not np.isfinite(inputs).all():
        yield f"{name} are not all finite"
    if inputs.shape[1] > shape.length:
        yield f"{name} have {inputs.shape[1]} steps, shape.length says {shape.length}"
    if mask is None:
        return
    if mask.dtype != np.bool_ or mask.shape != inputs.shape[:2]:
        yield f"{masked} must be bool {inputs.shape[:2]}, found {mask.dtype} {mask.shape}"
    elif (mask[:, 1:] & ~mask[:, :-1]).any():
        yield f"{masked} must be true on a prefix: valid steps stand first"
    elif not mask[:, 0].all():
        yield f"{masked} leaves an example with no valid step"


def _target_problems(task: Task, batch: Batch) -> Iterator[str]:
    steps = {"classify": (), "retrieve": (), "seq2seq": np.shape(batch.decoder_inputs)[1:]}
    wanted = (len(batch), *steps.get(task.role, batch.inputs.shape[1:2]))
    if batch.targets is None or batch.targets.dtype != np.int64 or batch.targets.shape != wanted:
        found = "none" if batch.targets is None else f"{batch.targets.dtype} {batch.targets.shape}"
        yield f"targets must be int64 {wanted} for role {task.role}, found {found}"
        return
    yield from _outside("targets", batch.targets, "outputs", task.shape.outputs)
    if batch.counted is None:
        if batch.mask is not None and not batch.mask.all() and task.role in ("lm", "masked"):
            yield "counted must say that padding does not count"
        return
    if batch.counted.dtype != np.bool_ or batch.counted.shape != wanted:
        yield f"counted must be bool {wanted}, found {batch.counted.dtype} {batch.counted.shape}"
    elif not batch.counted.any():
        yield "no target counts"
    elif task.role in ("lm", "masked") and batch.mask is not None and (batch.counted & ~batch.mask).any():
        yield "targets count where the mask says there is only padding"


def _decoder_problems(task: Task, batch: Batch) -> Iterator[str]:
    inputs, targets, shape = batch.decoder_inputs, batch.targets, task.shape
    counted = np.ones(targets.shape, dtype=bool) if batch.counted is None else batch.counted
    if inputs.ndim != 2 or inputs.dtype != np.int64:
        yield f"decoder_inputs must be int64 (B, U), found {inputs.dtype} {inputs.shape}"
        return
    if inputs.shape[1] > (shape.target_length or 0):
        yield f"decoder_inputs have {inputs.shape[1]} steps, shape.target_length says {shape.target_length}"
    yield from _outside("decoder_inputs", inputs, "outputs", shape.outputs)
    both = counted[:, 1:] & counted[:, :-1]
    if (inputs[:, 1:] != targets[:, :-1])[both].any():
        yield "decoder_inputs must be the targets shifted right by one"
    if task.decoding is None:
        return
    if (inputs[:, 0] != task.decoding.start).any():
        yield f"decoder_inputs must begin with decoding.start, {task.decoding.start}"
    last = counted.shape[1] - 1 - counted[:, ::-1].argmax(axis=1)
    if (np.take_along_axis(targets, last[:, None], axis=1) != task.decoding.stop).any():
        yield f"the last target that counts must be decoding.stop, {task.decoding.stop}"
    if counted.sum(axis=1).max() > task.decoding.longest:
        yield f"answers have up to {counted.sum(axis=1).max()} tokens, decoding.longest says {task.decoding.longest}"


def _outside(name: str, values: Any, bound: str, limit: int) -> Iterator[str]:
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low < 0 or high >= limit:
        yield f"{name} lie in [{low}, {high}]; they must be at least 0 and below shape.{bound} = {limit}"


Answer = Callable[[Task, Batch], "tuple[Tensor, Sequence[Sequence[int]]]"]
"""From a batch to logits, and to written answers for tasks that score these."""


def _score(subject: Subject, answer: Answer, batches: list[Batch] | None = None) -> dict[str, float]:
    """Scores of answers to the test examples, those of written answers among them."""
    task = subject.task
    logit_totals: Totals = {}
    written_totals: Totals = {}
    for batch in subject.test if batches is None else batches:
        logits, written = answer(task, batch)
        logit_totals = add_totals(logit_totals, task.totals(logits, batch))
        if task.decoding is not None:
            written_totals = add_totals(written_totals, task.decoded(written, batch))
    return {**scores(logit_totals), **scores(written_totals)}


def _right(task: Task, batch: Batch) -> tuple[Tensor, list[list[int]]]:
    return _certain(batch.targets, task.shape.outputs), _written(task, batch)


def _wrong(task: Task, batch: Batch) -> tuple[Tensor, list[list[int]]]:
    outputs = task.shape.outputs
    return _certain((batch.targets + 1) % outputs, outputs), [[] for _ in range(len(batch))]


def _noise(task: Task, batch: Batch) -> tuple[Tensor, list[list[int]]]:
    """Logits that depend on the example alone; right answers for every other example, by its content."""
    import torch

    places = torch.arange(task.shape.outputs) + 1.0
    inputs = batch.inputs.double().flatten(1).sum(1).view(-1, *[1] * batch.targets.dim())
    logits = torch.sin(places * (batch.targets[..., None] + 1.0) + inputs).float()
    return logits, [text if sum(text) % 2 else text[:1] for text in _written(task, batch)]


def _certain(targets: Tensor, outputs: int) -> Tensor:
    """Logits that leave no doubt."""
    import torch

    logits = torch.zeros(*targets.shape, outputs)
    return logits.scatter_(-1, targets[..., None], 1e4)


def _written(task: Task, batch: Batch) -> list[list[int]]:
    """The targets as a decoder would write them, without the stop token."""
    if task.decoding is None:
        return []
    counted = batch.targets == batch.targets if batch.counted is None else batch.counted
    rows = [target[count].tolist() for target, count in zip(batch.targets, counted, strict=True)]
    return [row[: row.index(task.decoding.stop)] if task.decoding.stop in row else row for row in rows]


def _constant(subject: Subject) -> Answer:
    """Answers that ignore the question: how often each is right in training; in writing, the commonest one."""
    import torch

    task = subject.task
    seen = task.examples("train", task.evaluation_ids("train", 4 * subject.limit), 0).tensors()
    counted = seen.targets == seen.targets if seen.counted is None else seen.counted
    often = torch.bincount(seen.targets[counted], minlength=task.shape.outputs) + 0.5
    logits = (often / often.sum()).log()
    common = Counter(map(tuple, _written(task, seen))).most_common(1)

    def answer(task: Task, batch: Batch) -> tuple[Tensor, Sequence[Sequence[int]]]:
        written = [common[0][0]] * len(batch) if common else []
        return logits.expand(*batch.targets.shape, -1), written

    return answer


def _better(task: Task, one: float, other: float) -> bool:
    return one > other if task.metric.higher_is_better else one < other


def _implausible(task: Task, baseline: Baseline, best: float) -> str:
    """What is wrong with a baseline's value, beside the score of right answers."""
    if not isinstance(baseline.value, (int, float)) or not math.isfinite(baseline.value):
        return "not a finite number"
    if not _better(task, best, baseline.value):
        return "as good as right answers, or better; limit: right answers"
    if task.metric.higher_is_better and baseline.value < -best:
        return f"not on the metric's range, from {-best:g} to {best:g}"
    return ""
