"""How far a suite is: what is finished, under way, and to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.execute.runner import current
from harness.plan import trials
from harness.plan.expand import expand
from harness.records.record import STATUSES, Record
from harness.records.store import Store, default_root
from harness.suite.load import load


def status(suite: str | None, root: Path | None = None, overrides: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Per suite: records by status, runs with a checkpoint, and runs to do, also where a record is published."""
    if suite is None:
        folder = root or default_root()
        names = sorted({path.parent.parent.name for path in folder.glob("*/*/record.json")})
        return [{"suite": name, "counts": _counts(Store(name, root).records())} for name in names]
    loaded = load(suite, overrides)
    store = Store(loaded.name, root)
    _, records = current(loaded, store)
    marks = store.published()
    own = [record for record in records if store.finished(record.run_id, marks)]
    counts = _counts(own)
    counts["under way"] = len(list(store.folder.glob("*/checkpoint")))
    counts["to do"] = len(expand(loaded)) + trials.count(loaded) - len(own) - counts["under way"]
    counts["published by others"] = len(records) - len(own)
    return [{"suite": loaded.name, "counts": counts}]


def _counts(records: list[Record]) -> dict[str, int]:
    return {name: sum(record.status == name for record in records) for name in STATUSES}
