"""How sure a ranking is. `block` judges the architectures of one task against each other."""

from harness.stats.block import (
    LEVEL,
    POWER,
    Comparison,
    Estimate,
    Pair,
    Scores,
    compare,
    critical_range,
    letters,
    smallest_difference,
)

__all__ = [
    "LEVEL",
    "POWER",
    "Comparison",
    "Estimate",
    "Pair",
    "Scores",
    "compare",
    "critical_range",
    "letters",
    "smallest_difference",
]
