"""Gates of effort: no more training than the budget allows, on the same data in the same order as every other row."""

import inspect
import random
import sys
from types import FunctionType
from typing import Any

import torch

from harness.gates.float64 import undone
from harness.gates.measure import result, worst
from harness.gates.registry import FIRST, LAST, gate
from harness.gates.subject import Subject
from harness.records.record import Gate
from harness.records.stream_hash import extend_hash
from tasks.base import Task

WORK = 0.01
"""Relative: shapes of one task's batches are equal, and so is the work."""
CHECKED = 12
"""Batches that are made again."""
OF_OTHER_GATES = ("scoring changed the model", "a batch was changed by the model")
"""Violations that another gate reports."""


@gate("more training than the budget allows", when=LAST)
def within_budget(subject: Subject) -> Gate:
    """An independent count of what was used; updates and gradients the harness did not ask for; work per step."""
    watch = subject.watch
    steps = {int(s["step"]) for s in watch.optimizer.state.values() if "step" in s}
    odd = {name: n for name, n in watch.violations.items() if name not in OF_OTHER_GATES}
    kinds = f" ({'; '.join(sorted(odd))})" if odd else ""
    used = subject.used
    miscounted = (watch.steps != used.steps) + (watch.tokens != used.tokens) + (not steps <= {watch.steps})
    return worst(
        result(sum(odd.values()), 0, f"changes of parameters or gradients outside of the optimizer's updates{kinds}"),
        result(miscounted, 0, "meters that disagree with what was seen: steps, tokens, the optimizer's steps"),
        _over(subject),
        *_work(subject),
    )


def _over(subject: Subject) -> Gate:
    """What was used beyond the limit of the budget."""
    meter, limit = subject.stop.meter, subject.stop.limit
    used, grace = float(subject.used.of(meter)), 0.0
    if meter == "seconds":
        grace = subject.watch.longest_step
    elif subject.used.steps <= 1:
        grace = used  # one step is always made
    return result(max(0.0, used - grace - limit) / limit, 0.0, f"{meter} used beyond the limit, relative")


def _work(subject: Subject) -> list[Gate]:
    """FLOPs of later steps against those of the first, by which all are counted."""
    watch = subject.watch
    if not subject.step.flops:
        return []
    batch = subject.task.batch("train", 0, subject.seed, size=subject.examples)
    with undone(subject.model, training=True), torch.enable_grad():
        last = watch.count_flops(subject.model, batch)
    extra = max(count / subject.step.flops - 1 for count in [*watch.flops, last])
    return [result(max(0.0, extra), WORK, "FLOPs of a later step beyond the first one's, relative")]


@gate("other training data, or in another order", when=FIRST)
def data_order(subject: Subject) -> Gate:
    """Make the batches of randomly drawn steps again, by a task built anew; look for functions that were replaced."""
    digests, task = subject.watch.digests, subject.build_task()

    def made(step: int) -> str:
        return extend_hash("", type(task).batch(task, "train", step, subject.seed, size=subject.examples))

    drawn = random.SystemRandom().sample(sorted(digests), min(CHECKED, len(digests)))
    steps = sorted({*drawn, *sorted(digests)[:2]})
    other = [step for step in steps if made(step) != digests[step]]
    changed = subject.watch.violations.get("a batch was changed by the model", 0)
    replaced = replaced_functions(task)
    parts = [f"step {step}" for step in other] + replaced + (["a batch changed by the model"] if changed else [])
    which = f": {', '.join(parts[:4])}" if parts else ""
    about = f"of {len(steps)} batches made again, those that differ{which}"
    return result(len(other) + changed + len(replaced), 0, about)


def replaced_functions(task: Task) -> list[str]:
    """Functions of the task, and of the modules it is trained through, that were written somewhere else."""
    found = [
        f"{kind.__name__}.{name}"
        for kind in type(task).__mro__
        if kind.__module__ not in ("builtins", "abc")
        for name, value in vars(kind).items()
        if name in vars(Task) and isinstance(value, FunctionType) and not _at_home(value, kind)
    ]
    found += [f"{name} of the task itself" for name in vars(task) if callable(getattr(type(task), name, None))]
    for home in (sys.modules[name] for name in OWN if name in sys.modules):
        for name, value in vars(home).items():
            own = isinstance(value, FunctionType) and value.__module__ == home.__name__
            elsewhere = name in OWN[home.__name__] and getattr(value, "__module__", None) != home.__name__
            if (own and not _at_home(value, home)) or elsewhere:
                found.append(f"{home.__name__}.{name}")
    return found


OWN = {
    "harness.records.meters": ("StopRule", "Meters"),
    "harness.records.stream_hash": ("extend_hash",),
    "harness.training.batches": ("stream",),
    "harness.training.schedule": ("schedule",),
    "tasks.base": ("in_epochs", "_shuffled", "scores", "add_totals"),
}
"""Functions that training goes through, by module."""


def _at_home(value: Any, home: Any) -> bool:
    """Whether a function stands in the file of the class or module that holds it."""
    try:
        return inspect.unwrap(value).__code__.co_filename == value.__code__.co_filename == inspect.getsourcefile(home)
    except (TypeError, OSError):
        return value.__module__ == getattr(home, "__module__", None)
