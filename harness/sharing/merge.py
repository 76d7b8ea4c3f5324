"""Bundles of several people in one board, which says of every run who vouches for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.board.report import publish_records
from harness.execute.runner import score_baselines
from harness.records.record import ORIGINS, Origin, OriginKind, Record
from harness.records.store import Store
from harness.sharing.review import Review, review, trusted
from harness.suite.load import load


@dataclass(frozen=True)
class Merged:
    """What a merge did: nothing at all, if a bundle was refused."""

    folder: Path
    reviews: list[Review]
    added: int = 0
    kept: list[str] = field(default_factory=list)
    """Why published runs stayed as they are, where a bundle has them, too."""

    @property
    def accepted(self) -> bool:
        return all(review.accepted for review in self.reviews)

    def to_dict(self) -> dict[str, Any]:
        """What was done, as JSON."""
        return {"added": self.added, "kept": self.kept, "reviews": [one.to_dict() for one in self.reviews]}


def merge(
    files: Sequence[Path],
    suite: str,
    overrides: tuple[str, ...] = (),
    root: Path | None = None,
    *,
    trust: bool = False,
    count: int = 0,
    tolerance: float | None = None,
    console: Console,
) -> Merged:
    """Review bundles, and add their runs to the published ones of a suite if every one of them is accepted.

    Runs are `reviewed` if some of their bundle were made again, else `reported`. A run that is published already
    stays, unless the bundle's is better vouched for.

    Args:
        trust: see `harness.suite.load.load`. count, tolerance: see `harness.sharing.review.review`.

    Raises:
        UserError: the suite or its data is not as it should be.
    """
    loaded = load(suite, overrides, trust=trust)
    store = Store(loaded.name, root)
    published = {run_id: store.published.record(run_id) for run_id in store.published.ids()}
    given: dict[str, Any] = {"ours": trusted(store), "count": count, "tolerance": tolerance, "console": console}
    reviews = [review(file, loaded, **given) for file in files]
    if not all(one.accepted for one in reviews):
        return Merged(store.folder, reviews)
    before, kept, listed = len(published), list[str](), list[dict[str, Any]]()
    for one in reviews:
        kind: OriginKind = "reviewed" if one.again else "reported"
        who = f"{one.contributor} (signed by {one.signed})" if one.signed else one.contributor
        new = [record.replace(origin=Origin(kind, who)) for record in one.records]
        taken = [record for record in new if _better(record, published.get(record.run_id))]
        kept += [_kept(record, published[record.run_id]) for record in new if record not in taken]
        published |= {record.run_id: record for record in taken}
        listed.append(_contribution(one, kind, len(taken)))
    score_baselines(loaded, store, console, [task.label for task in loaded.tasks])
    publish_records(store, loaded.described(()), [*published.values()], listed)
    return Merged(store.folder, reviews, len(published) - before, kept)


def _better(new: Record, old: Record | None) -> bool:
    """Whether there is more reason to believe a new record than the published one of the same run."""
    return old is None or ORIGINS.index(new.origin.kind) < ORIGINS.index(old.origin.kind)


def _kept(new: Record, old: Record) -> str:
    who = f" by {old.origin.contributor}" if old.origin.contributor else ""
    said = "the same scores" if new.metrics == old.metrics else "other scores"
    why = f"left out, published already ({old.origin.kind}{who}), with {said}"
    return f"{new.spec.title()} ({new.run_id}) of {new.origin.contributor}: {why}"


def _contribution(done: Review, kind: str, taken: int) -> dict[str, Any]:
    """What published.json says of a bundle."""
    when = datetime.now(timezone.utc).date().isoformat()
    about = {"contributor": done.contributor, "date": when, "sha256": done.sha256, "runs": taken, "origin": kind}
    about |= {"signed": done.signed} if done.signed else {}
    return about | {"made_again": [one.to_dict() for one in done.again]}
