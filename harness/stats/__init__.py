"""How sure a ranking is: `comparison` for the architectures of one task, `aggregate` for several tasks."""

from harness.stats.comparison import Comparison, Estimate, Influence, compare, leave_one_out, letters
from harness.stats.judge import DRAWS, LEVEL
from harness.stats.sequential import level_of, looks, undecided

__all__ = [
    "DRAWS",
    "LEVEL",
    "Comparison",
    "Estimate",
    "Influence",
    "compare",
    "leave_one_out",
    "letters",
    "level_of",
    "looks",
    "undecided",
]
