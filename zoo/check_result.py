"""What a check hands back, of an architecture or of a task. Nothing here imports torch."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CheckResult:
    """What one check found."""

    check: str
    status: Literal["passed", "failed", "skipped"]
    measured: float | None = None
    limit: float | None = None
    note: str = ""


def within(check: str, measured: float, limit: float, note: str = "") -> CheckResult:
    """Passed where `measured` is at most `limit`; NaN fails."""
    return CheckResult(check, "passed" if measured <= limit else "failed", measured, limit, note)


def failed(check: str, why: str) -> CheckResult:
    """Failed, and why."""
    return CheckResult(check, "failed", note=why)


def skipped(check: str, why: str) -> CheckResult:
    """Not checked, and why."""
    return CheckResult(check, "skipped", note=why)
