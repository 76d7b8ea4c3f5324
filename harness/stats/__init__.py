"""How sure a ranking is: `comparison` for the architectures of one task, `aggregate` for several tasks."""

from harness.stats.comparison import Comparison, Estimate, Influence, compare, leave_one_out, letters
from harness.stats.judge import DRAWS, LEVEL

__all__ = ["DRAWS", "LEVEL", "Comparison", "Estimate", "Influence", "compare", "leave_one_out", "letters"]
