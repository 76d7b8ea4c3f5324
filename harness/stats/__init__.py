"""How sure a ranking is. `block` judges the architectures of one task against each other, on the model in `judge`."""

from harness.stats.block import Comparison, Estimate, Hinge, Pair, Scores, compare, hinges, letters
from harness.stats.studentised import LEVEL, POWER, critical_range, smallest_difference

__all__ = [
    "LEVEL",
    "POWER",
    "Comparison",
    "Estimate",
    "Hinge",
    "Pair",
    "Scores",
    "compare",
    "critical_range",
    "hinges",
    "letters",
    "smallest_difference",
]
