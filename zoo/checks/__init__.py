"""The contract, as checks that run on any architecture by name: `zoo.checks.run("pre_ln")`.

What is checked follows from the traits of the built model: a claim is put to the test, what is not claimed is skipped.
Models are tiny, in float64, with every parameter randomised, so that nothing hides behind a zero initialisation.
"""

from collections.abc import Callable
from typing import Any

import torch

from zoo.check_result import CheckResult, failed
from zoo.checks import flow, making, numerics
from zoo.checks.subject import Subject

__all__ = ["CHECKS", "CheckResult", "apply", "run"]

CHECKS: dict[str, Callable[[Subject], CheckResult]] = {
    name.removeprefix("check_"): check
    for module in (making, flow, numerics)
    for name, check in vars(module).items()
    if name.startswith("check_")
}
"""The functions `check_NAME` of the three modules."""


def run(name: str, **options: Any) -> list[CheckResult]:
    """Every check on one architecture under `options`.

    Raises:
        KeyError: unknown architecture. TypeError: unknown option.
    """
    subject = Subject(name, options)
    return [apply(check, subject) for check in CHECKS]


def apply(check: str, subject: Subject) -> CheckResult:
    """One check; an error inside it is a failure that says what was raised. Random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return CHECKS[check](subject)
        except Exception as error:  # a plug-in may raise anything
            return failed(check, f"{type(error).__name__}: {error}")
