"""How sure a ranking is: `comparison` for the architectures of one task, `aggregate` for several tasks."""

from harness.stats.comparison import Comparison, Estimate, Influence, Pair, Scores, compare, leave_one_out, letters
from harness.stats.studentised import LEVEL, POWER, critical_range, smallest_difference

__all__ = [
    "LEVEL",
    "POWER",
    "Comparison",
    "Estimate",
    "Influence",
    "Pair",
    "Scores",
    "compare",
    "critical_range",
    "leave_one_out",
    "letters",
    "smallest_difference",
]
