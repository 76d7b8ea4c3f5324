"""The key `seeds` of a suite: the same for every row, or added where they matter."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from harness.records.seeds import SeedRule
from harness.suite.strict import Strict
from harness.units import Count, parse_quantity
from zoo.registry import nearest


def _separated_or_width(value: Any) -> Any:
    """`separated`, or a half-width."""
    if isinstance(value, str) and value.isalpha():
        if value != "separated":
            raise ValueError(f"{value!r} is not known here{nearest(value, ['separated'])}; or give a half-width")
        return value
    return parse_quantity(value)


class Seeds(Strict):
    """Seeds that are added where they matter: in rounds, one more for each row that is still undecided."""

    start: Count
    """Seeds that every row gets, from 0 on."""
    most: Annotated[Count, Field(le=100_000)]
    """Seeds that a row gets at most."""
    until: Annotated[Literal["separated"] | float, BeforeValidator(_separated_or_width)]
    """`separated`: until rows next to each other are; or half of the 95% interval of a mean, in the metric's unit."""

    @model_validator(mode="after")
    def _room(self) -> Seeds:
        if self.start < 2:
            raise ValueError("start must be at least 2: one seed tells nothing of scatter")
        if self.most <= self.start:
            raise ValueError(f"most ({self.most}) must be more than start ({self.start}), or no seed is ever added")
        return self

    def rule(self) -> SeedRule:
        """The rule as boards hold it."""
        return SeedRule(self.start, self.most, self.until)


def _list_or_rule(value: Any) -> str:
    """Which of the two seeds are meant to be; in brackets, which keep it out of the paths of errors."""
    return "[rule]" if isinstance(value, (dict, Seeds)) else "[list]"


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("seeds repeat")
    return seeds


_Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_SeedList = Annotated[list[_Seed], Field(min_length=1), AfterValidator(_distinct)]
SeedsOrRule = Annotated[
    Annotated[_SeedList, Tag("[list]")] | Annotated[Seeds, Tag("[rule]")], Discriminator(_list_or_rule)
]
"""The seeds of every row, or a rule that adds them."""
