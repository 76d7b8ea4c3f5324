"""Numbers as the tables and plots of a board write them."""

from __future__ import annotations

NONE = "–"
_SCALES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def human(number: float | None, unit: str = "", figures: int = 2) -> str:
    """Few figures and a decimal scale: 401234 → 401k, 2.4e12 FLOP → 2.4 TFLOP."""
    if number is None:
        return NONE
    scale, prefix = next((s for s in _SCALES if abs(number) >= s[0] * 0.9995), _SCALES[-1])
    size = number / scale
    text = f"{size:.0f}" if abs(size) >= 10 ** (figures - 1) else f"{size:.{figures}g}"
    return f"{text} {prefix}{unit}" if unit else f"{text}{prefix}"


def ranks(span: tuple[int, int] | None) -> str:
    """`1` or `2–4`."""
    if span is None:
        return NONE
    low, high = span
    return str(low) if low == high else f"{low}–{high}"


def decimal(number: float | None) -> str:
    """Three decimals."""
    return NONE if number is None else f"{number:.3f}"
