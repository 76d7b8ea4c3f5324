"""The final runs of a suite that adds seeds where they matter, as far as records decide them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from harness.records.record import Record
from harness.records.seeds import SeedRule
from harness.records.spec import RunSpec
from harness.suite.loaded import LoadedSuite
from harness.table.comparable import grouped
from harness.table.compare import compare_runs
from harness.table.rounds import Progress, describe, follow

Lookup: TypeAlias = "Callable[[RunSpec], Record | None]"


def add_seeds(
    loaded: LoadedSuite, finals: list[RunSpec], trials: Sequence[Record], lookup: Lookup
) -> tuple[list[RunSpec], list[str]]:
    """The final runs of all rounds that records decide, and for each table that is under way what is added and why.

    Args:
        finals: the suite's, as its trials decide them: those of the first round, and all where seeds are fixed.
        lookup: the record of a run, or None while it has none.
    """
    rule = loaded.suite.seed_rule
    if rule is None:
        return finals, []
    specs, said = [*finals], list[str]()
    tried = grouped((record.spec.cell[1:], record) for record in trials)
    for table, own in grouped((spec.cell[1:], spec) for spec in finals if not spec.pretrained).items():
        rows = {spec.architecture_label: spec for spec in own}
        now = _follow(rule, rows, tried.get(table, []), lookup)
        specs += [rows[row].replace(seed=seed) for row, n in now.planned.items() for seed in range(rule.start, n)]
        if now.seeds and now.adding:
            title = " · ".join(filter(None, table))
            said.append(f"{title}: {describe(rule, now)}; one more for {', '.join(now.adding)}")
    return specs, said


def _follow(rule: SeedRule, rows: dict[str, RunSpec], trials: list[Record], lookup: Lookup) -> Progress:
    """The rounds of one table, of which each row has a run."""

    def find(row: str, seed: int) -> Record | None:
        return lookup(rows[row].replace(seed=seed))

    return follow(rule, rows, find, partial(compare_runs, trials=trials, rule=rule))
