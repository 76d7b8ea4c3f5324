"""Numbers as people write them in suites: 400k, 1M, 5%, 1e-3, 90s, 1h. And back, for tables and logs."""

import math
import re
import reprlib
from typing import Annotated, Any

from pydantic import BeforeValidator

NONE = "–"
"""What a table shows where there is no number."""
_NUMBER = r"([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_SCALES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12, "P": 10**15}
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def _split(value: Any, scales: dict[str, Any], example: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{value!r} is not a number; write it like {example}")
    if not isinstance(value, str):
        return float(min(max(value, -1e308), 1e308)) if isinstance(value, int) else value
    match = re.fullmatch(_NUMBER + r"\s*([A-Za-z%]*)", value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a number; write it like {example}")
    if match[2] not in scales:
        known = ", ".join(unit for unit in scales if unit)
        raise ValueError(f"unknown unit {match[2]!r} in {value!r}; known units: {known} (for example {example})")
    return float(match[1].replace("_", "")) * scales[match[2]]


def _positive(number: float, value: Any) -> float:
    if not 0 < number < float("inf"):
        raise ValueError(f"must be positive, got {value!r}")
    return number


def parse_count(value: Any) -> int:
    """`400k` → 400000. Raises ValueError for anything but a positive whole number."""
    number = _positive(_split(value, _SCALES, "400k or 1M"), value)
    if abs(number - round(number)) > 1e-9 * number:
        raise ValueError(f"must be a whole number, got {value!r}")
    if number >= 2**63:
        raise ValueError(f"must be smaller, got {reprlib.repr(value)}")
    return round(number)


def parse_quantity(value: Any) -> float:
    """`2T` → 2e12. Raises ValueError for anything but a positive number."""
    return _positive(_split(value, _SCALES, "1e-3 or 2T"), value)


def parse_fraction(value: Any) -> float:
    """`5%` → 0.05, `0.05` → 0.05. Raises ValueError outside [0, 1]."""
    number = _split(value, {"": 1.0, "%": 0.01}, "5% or 0.05")
    if not 0 <= number <= 1:
        raise ValueError(f"must be between 0% and 100%, got {value!r}")
    return number


def parse_duration(value: Any) -> float:
    """`10m` → 600.0 seconds. Raises ValueError for anything but a positive duration."""
    return _positive(_split(value, _SECONDS, "90s, 10m or 1h"), value)


def parse_number(value: Any) -> float:
    """Any finite number that is not negative; YAML reads `1e-3` as text."""
    number = _split(value, {"": 1.0}, "1e-3")
    if not 0 <= number < float("inf"):
        raise ValueError(f"must be zero or more, got {value!r}")
    return number


Count = Annotated[int, BeforeValidator(parse_count)]
Quantity = Annotated[float, BeforeValidator(parse_quantity)]
Fraction = Annotated[float, BeforeValidator(parse_fraction)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
Number = Annotated[float, BeforeValidator(parse_number)]


def short(number: float | None, unit: str = "") -> str:
    """Three figures and a scale: 401234 → 401k."""
    if number is None:
        return NONE
    size, prefix = _scaled(number)
    return f"{size:.3g}{prefix}{unit}"


def human(number: float | None, unit: str = "", figures: int = 2) -> str:
    """Few figures, whole numbers in full, and a space before the unit: 401234 → 401k, 2.4e12 FLOP → 2.4 TFLOP."""
    if number is None:
        return NONE
    size, prefix = _scaled(number)
    text = f"{size:.0f}" if abs(size) >= 10 ** (figures - 1) else f"{size:.{figures}g}"
    return f"{text} {prefix}{unit}" if unit else f"{text}{prefix}"


def _scaled(number: float) -> tuple[float, str]:
    for scale, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= scale * 0.9995:
            return number / scale, prefix
    return number, ""


def clock(seconds: float) -> str:
    """Seconds as 12s, 3m05s or 1h02m."""
    if not math.isfinite(seconds):
        return NONE
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}h{minutes % 60:02}m"
