"""The rows of a table, compared as boards show them."""

from collections.abc import Iterable, Sequence

from harness import stats
from harness.records.record import Metrics, Record
from harness.records.seeds import SeedRule
from harness.table.comparable import Common, by_architecture, one_per_seed, reasons
from harness.table.effort import compared
from harness.table.rows import Row, Runs, row


def compare_runs(runs: Sequence[Record], *, trials: Sequence[Record], rule: SeedRule) -> stats.Comparison:
    """Compare the rows of one table, to which a rule adds seeds, as its board does."""
    shared = Common(runs)
    higher, scores = higher_is_better(runs, shared), scores_of(rows_of(runs, trials, shared))
    return stats.compare(scores, higher_is_better=higher, level=stats.level_of(rule), uneven=True)


def rows_of(runs: Sequence[Record], trials: Sequence[Record], shared: Common) -> list[Row]:
    """A row for each architecture, not yet ranked, with every reason why it may not be."""
    tried = by_architecture(trials)
    rows = [
        row(name, Runs(one_per_seed(own), tried.get(name, []) if trials else None), reasons(own, shared))
        for name, own in by_architecture(runs).items()
    ]
    rows = compared(rows, trials)
    most = max((len(row.seeds) for row in rows if not row.reason), default=0)
    # one seed beside rows of several has no scatter: it is not ranked, rather than tied with everybody
    reason = f"one seed only, where others have {most}"
    return [row.replace(reason=reason) if not row.reason and len(row.seeds) == 1 < most else row for row in rows]


def metrics_of(finals: Sequence[Record], shared: Common) -> Metrics:
    """The metric most runs agree on; that of any run where there is none."""
    named = [r.metrics for r in finals if r.metrics.primary]
    agreed = [metrics for metrics in named if metrics.primary in shared.terms["metric"]]
    return next(iter(agreed or named), Metrics("", higher_is_better=False))


def higher_is_better(runs: Sequence[Record], shared: Common) -> bool:
    """Whether a larger score is better; it is not if rows are ranked by what they used to reach a target."""
    target = shared.stop is not None and shared.stop.target is not None
    return metrics_of(runs, shared).higher_is_better and not target


def scores_of(rows: Iterable[Row]) -> dict[str, dict[int, float]]:
    """The scores of the rows that may be ranked."""
    return {row.architecture: row.by_seed for row in rows if not row.reason}
