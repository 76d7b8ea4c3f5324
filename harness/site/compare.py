"""What the comparison of two architectures needs of every board; its page subtracts, the boards have judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.table.rows import Row

if TYPE_CHECKING:
    from harness.site.build import Site

COLUMNS = ("board", "metric", "difference", "± (95%)", "verdict", "FLOPs", "speed", "state", "params")


def names(site: Site) -> list[str]:
    """Every row of any board, the best overall first."""
    return [line.name for line in site.matrix.lines]


def boards(site: Site) -> list[dict[str, Any]]:
    """Every board with its rows."""
    return [
        {
            "suite": column.suite,
            "task": column.task.title,
            "metric": column.task.metric,
            "higher": column.task.higher_is_better,
            "href": column.href,
            "rows": {row.architecture: _row(row) for row in column.task.rows},
        }
        for column in site.matrix.columns
    ]


def _row(row: Row) -> dict[str, Any]:
    half = None if row.low is None or row.high is None else (row.high - row.low) / 2
    known = {
        "mean": row.mean,
        "half": half,
        "letters": row.letters if row.ranked else "",
        "reason": row.reason,
        "flops": row.flops,
        "speed": row.tokens_per_s,
        "state": row.state_bytes,
        "params": row.params_non_embedding,
    }
    return {name: value for name, value in known.items() if value not in (None, "")}
