"""Refusals of options out of range. The registry has checked types and choices before."""

from __future__ import annotations


def at_least_one(owner: str, **options: float | None) -> None:
    """Refuse sizes below 1; None stands for a default.

    Raises:
        ValueError: one is below.
    """
    for name, value in options.items():
        if value is not None and value < 1:
            raise ValueError(f"{owner}: {name} must be at least 1, got {value}")


def positive(owner: str, **options: float | None) -> None:
    """Refuse numbers that are not above 0; None stands for a default.

    Raises:
        ValueError: one is not.
    """
    for name, value in options.items():
        if value is not None and value <= 0:
            raise ValueError(f"{owner}: {name} must be positive, got {value}")


def check_step_sizes(owner: str, dt_min: float, dt_max: float) -> None:
    """Refuse a range in which no step size Δ could start.

    Raises:
        ValueError: it is empty, or not positive.
    """
    if not 0 < dt_min <= dt_max:
        raise ValueError(f"{owner}: need 0 < dt_min <= dt_max, got {dt_min} and {dt_max}")
