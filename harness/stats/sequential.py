"""Seeds that are added in rounds: what is still undecided after one, and the level at which pairs are tried.

Every round ends in a look at the table, and each look may err with its share of the level: spent evenly over the looks
(the linear function of Lan and DeMets 1983, doi:10.1093/biomet/70.3.659), with no use made of how they depend on each
other (Bonferroni). Functions that spend more of it early or late need as many runs; see docs/statistics.md.
"""

from itertools import pairwise

from harness.records.seeds import SeedRule
from harness.stats.comparison import Comparison
from harness.stats.judge import LEVEL


def level_of(rule: SeedRule | None) -> float:
    """The level of each look at pairs; the whole where seeds are fixed.

    Which rows are too wide does not depend on how means differ: then, too, pairs are tried once, at the whole level.
    """
    return LEVEL / looks(rule) if rule else LEVEL


def looks(rule: SeedRule) -> int:
    """How often pairs are tried at most."""
    return 1 + rule.most - rule.start if rule.until == "separated" else 1


def undecided(rule: SeedRule, found: Comparison) -> list[tuple[str, ...]]:
    """What the rule asks for and these rows do not show: pairs of neighbours, best first, or single rows."""
    if rule.until == "separated":
        return [pair for i, pair in enumerate(pairwise(found.estimates)) if found.tied[i] >> (i + 1) & 1]
    rows = found.estimates.items()
    return [(a,) for a, e in rows if e.low is not None and e.high is not None and e.high - e.low > 2 * rule.until]
