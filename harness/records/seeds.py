"""The rule by which a suite adds seeds, as its results keep it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from harness.records.parts import Mismatch, Within, read

Seeds: TypeAlias = Annotated[int, Within(2, 100_000)]


@dataclass(frozen=True, slots=True)
class SeedRule:
    """Every row has `start` seeds; rows that are undecided get one more in each round, `most` in all."""

    start: Seeds
    most: Seeds
    until: Literal["separated"] | float
    """Until neighbours are separated, or half of the 95% interval of each row's mean is at most this, in the metric's
    unit."""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SeedRule:
        """Read `{start: …, most: …, until: …}`; a Mismatch of all else, and where `most` is not more than `start`."""
        rule = read(cls, data)
        if rule.most <= rule.start:
            raise Mismatch(f"not more than start, which is {rule.start}", ("most",))
        return rule
