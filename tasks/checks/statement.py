"""What a task says of itself: its options and its difficulties."""

from inspect import Parameter
from typing import get_args

import numpy as np

from tasks import registry
from tasks.base import DataError
from tasks.checks.subject import Subject, named
from zoo.check_result import CheckResult, failed, skipped
from zoo.types import ROLES

STOPS = ("tokens", "steps", "flops", "seconds")

OWN = ("smoke", "small", "paper")
"""The difficulties that built-in tasks have."""


def check_options(subject: Subject) -> CheckResult:
    """It builds; every option has an annotation; unknown options, and whole numbers that cannot be, are refused."""
    task = subject.task
    if task.role not in ROLES:
        return failed("options", f"role {task.role!r} is not one of {', '.join(ROLES)}")
    try:
        subject.build(no_such_option=1)
    except TypeError:
        pass
    else:
        return failed("options", "an option it does not have is accepted")
    for option in subject.entry.options:
        if option.annotation is Parameter.empty:
            return failed("options", f"option {option.name} has no annotation, by which suites check its values")
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
            why = f"{option.name}=-1 is accepted, and then {named(error)}; refuse it in __init__ with a ValueError"
            return failed("options", why)
    return CheckResult("options", "passed", len(subject.entry.options), note="options")


def check_difficulties(subject: Subject) -> CheckResult:
    """Every difficulty builds, with one end of training and a size; built-in tasks have smoke, small and paper."""
    notes = []
    for name, difficulty in subject.difficulties.items():
        try:
            registry.build(subject.entry.name, **difficulty.options).shape  # noqa: B018
        except DataError as error:
            notes.append(f"{name}: {error}")
        except Exception as error:
            return failed("difficulties", f"{name}: {named(error)}")
        stop = dict(difficulty.stop)
        if len(stop) != 1 or set(stop) - set(STOPS) or min(stop.values()) <= 0:
            return failed("difficulties", f"{name}: stop must be one of {', '.join(STOPS)}, above 0; got {stop}")
        if difficulty.params < 1:
            return failed("difficulties", f"{name}: params must be at least 1, got {difficulty.params}")
    absent = [name for name in OWN if name not in subject.difficulties]
    if absent and subject.built_in:
        return failed("difficulties", f"{', '.join(absent)} must be there")
    if not subject.difficulties:
        return skipped("difficulties", f"none; {', '.join(OWN)} are recommended")
    if absent:
        notes.append(f"{', '.join(absent)} are recommended as well")
    note = "; ".join([", ".join(subject.difficulties), *notes])
    return CheckResult("difficulties", "passed", len(subject.difficulties), note=note)
