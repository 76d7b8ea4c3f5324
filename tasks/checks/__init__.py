"""The contract of tasks, as checks that run on any task by name, a plug-in's too: `tasks.checks.run("mqar")`.

A task is built with the options of its `smoke` difficulty, or its defaults where it has none. Where its data is not
here, what needs data is skipped. torch is imported only by the checks that score answers.
"""

from collections.abc import Callable
from typing import Any

from tasks.checks.arrays import check_shapes
from tasks.checks.purity import check_fingerprint, check_purity, check_seed, check_splits
from tasks.checks.randomness import randomness
from tasks.checks.scoring import check_baselines, check_evaluation, check_metric
from tasks.checks.statement import check_difficulties, check_options
from tasks.checks.subject import Subject, named
from zoo.check_result import CheckResult, failed

__all__ = ["CHECKS", "CheckResult", "Subject", "apply", "run"]

CHECKS: dict[str, Callable[[Subject], CheckResult]] = {
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


def run(name: str, **options: Any) -> list[CheckResult]:
    """Every check on the task called `name`, under `options` or else its `smoke` difficulty's.

    Raises:
        KeyError: unknown task.
    """
    subject = Subject(name, options)
    return [apply(check, subject) for check in CHECKS]


def apply(check: str, subject: Subject) -> CheckResult:
    """One check; an error inside it is a failure that says what was raised. Global random state is left as it was."""
    with randomness(1):
        try:
            return CHECKS[check](subject)
        except Exception as error:  # a plug-in may raise anything
            return failed(check, named(error))
