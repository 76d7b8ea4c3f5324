"""`zoobench status`: how far a suite is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.commands.common import json_option, print_json, root_option, suite_options
from harness.errors import UserError, printable

if TYPE_CHECKING:
    from harness.records.store import Store


@click.command()
@click.argument("suite", required=False)
@suite_options
@root_option
@json_option
def command(suite: str | None, overrides: tuple[str, ...], root: Path | None, as_json: bool) -> None:
    """Count the runs of SUITE that are finished, under way, or to do.

    Without SUITE, count the records of every suite that has results.
    """
    rows = status(suite, root, overrides)
    if as_json:
        print_json(rows)
    elif not rows:
        from harness.records.store import default_root

        click.echo(f"no results in {root or default_root()}/ yet; make the first with: zoobench run quick")
    for row in [] if as_json else rows:
        counts = ", ".join(f"{n} {what}" for what, n in row["counts"].items() if n)
        click.echo(printable(f"{row['suite']}: {counts or 'nothing yet'}"))
        for problem in row.get("problems", ()):
            click.echo(f"  {problem}")


def _made(store: Store) -> dict[str, Any] | None:
    """The records of a suite by status, and what cannot be read; None where there is neither."""
    from harness.records.record import count_statuses

    try:
        records, lost = store.readable()
    except UserError as error:
        return {"suite": store.suite, "counts": {}, "problems": [str(error)]}
    problems = [*lost, *(r.error.message for r in records if r.status == "damaged" and r.error)]
    return {"suite": store.suite, "counts": count_statuses(records), "problems": problems} if records or lost else None


def status(suite: str | None, root: Path | None = None, overrides: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Per suite: records by status, runs with a checkpoint, and runs to do, also where a record is published.

    Of seeds that are added, those of the round under way are to do.
    """
    from harness.execute.runner import current
    from harness.plan import trials
    from harness.plan.wanted import wanted
    from harness.records.record import count_statuses
    from harness.records.store import Store, stores
    from harness.suite.load import load_without_code

    if suite is None:
        return [row for store in stores(root) if (row := _made(store))]
    read, loaded = load_without_code(suite, overrides)
    store = Store(read.suite, root)
    if loaded is None:  # the suite is what it was when it last ran
        listed = {*store.described().get("runs", ())}
        records, planned = [record for record in store.records() if record.run_id in listed], len(listed)
    else:
        records = current(loaded, store)
        decided = wanted(loaded, {record.run_id: record for record in records}).values()
        planned = sum(spec.kind == "final" for spec in decided) + trials.count(loaded)
    own = [record for record in records if store.made_here(record.run_id)]
    counts = count_statuses(own)
    counts["under way"] = len(list(store.folder.glob("*/checkpoint")))
    counts["to do"] = planned - len(records) - counts["under way"]
    counts["published"] = len(records) - len(own)
    return [{"suite": store.suite, "counts": counts}]
