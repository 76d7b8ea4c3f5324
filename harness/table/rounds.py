"""The rounds of a table whose suite adds seeds: how far its records are, and what is added next.

They follow from records alone: once all runs of a round have ended, the table is judged, and that decides the next.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.records.seeds import SeedRule
from harness.stats import LEVEL, Comparison, level_of, looks, undecided

Run = TypeVar("Run")
LISTED = 4
"""Undecided pairs or rows that are named."""


@dataclass(frozen=True)
class Progress:
    """A table after the last round of which all runs have ended."""

    has: dict[str, int]
    """How many seeds each row then has: none before the first round has ended."""
    undecided: list[tuple[str, ...]]
    adding: dict[str, range]
    """The seeds of each row in the round under way; empty at the end."""

    @property
    def seeds(self) -> int:
        """The most that a row has."""
        return max(self.has.values(), default=0)

    @property
    def planned(self) -> dict[str, int]:
        """How many seeds each row has with the round under way."""
        return self.has | {row: seeds.stop for row, seeds in self.adding.items()}


def follow(
    rule: SeedRule,
    rows: Collection[str],
    find: Callable[[str, int], Run | None],
    compare: Callable[[Sequence[Run]], Comparison],
) -> Progress:
    """Go through the rounds of a table as far as its runs have ended.

    A row that has rested catches up with those that are added to beside it.

    Args:
        find: the run of a row's seed, or None until it has ended. compare: the rows of these runs, at the level of a
            look.
    """
    runs, now = list[Run](), Progress(dict.fromkeys(rows, 0), [], dict.fromkeys(rows, range(rule.start)))
    while now.adding:
        made = [find(row, seed) for row, seeds in now.adding.items() for seed in seeds]
        known = [run for run in made if run is not None]
        if len(known) < len(made):
            break
        runs += known
        has, most = now.planned, max(now.planned.values())
        left = undecided(rule, compare(runs))
        named = {name for names in left for name in names} if most < rule.most else ()
        now = Progress(has, left, {row: range(n, most + 1) for row, n in has.items() if row in named})
    return now


def describe(rule: SeedRule, now: Progress) -> str:
    """What is undecided after how many seeds, in words; or that nothing is."""
    names = ["–".join(own) for own in now.undecided]
    listed = ", ".join(names if len(names) <= LISTED else [*names[:LISTED], f"{len(names) - LISTED} more"])
    if rule.until == "separated":
        found = f"{listed} undecided" if names else "all neighbours are separated"
    else:
        found = f"{listed} wider than ±{rule.until:g}" if names else f"all intervals are within ±{rule.until:g}"
    if names and now.seeds == rule.most:
        return f"{found} with {rule.most} seeds, the most"
    return f"{found} after {now.seeds} seeds"


def note(rule: SeedRule, now: Progress) -> str:
    """Why no seeds are added any more, or which are; and the level of each look."""
    if not now.seeds:
        return f"the first {rule.start} seeds are not all here"
    said, count = describe(rule, now), looks(rule)
    if now.adding:
        said += f"; under way: one more for {', '.join(now.adding)}"
    if count > 1:
        said += f"; pairs are tried at {level_of(rule):.3g}, the part that each of {count} looks has in {LEVEL:g}"
    return said
