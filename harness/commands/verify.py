"""`zoobench verify`."""

import sys
from pathlib import Path
from typing import Any

import click

from harness.commands.common import (
    console,
    json_option,
    plugin_option,
    print_json,
    rerun_options,
    root_option,
)


@click.command()
@click.argument("path", metavar="PATH|RUN")
@root_option
@plugin_option
@rerun_options(0)
@json_option
def command(
    path: str, root: Path | None, plugins: tuple[str, ...], rerun: int, tolerance: float | None, as_json: bool
) -> None:
    """Check that records are sound; with --rerun, make some again.

    PATH is a record or any folder of records; RUN is an id, or labels such as quick/pre_ln/text/0. Each record must
    have its keys and an id that is the hash of its own spec and data; runs of one task and seed must have consumed the
    same batches; published files must have the hashes that stand beside them. Runs are made again in a temporary
    folder.
    """
    found, records = _checked(path, root)
    again = []
    if rerun and not found:
        from harness.execute.rerun import draw
        from harness.execute.rerun import rerun as make_again

        given: dict[str, Any] = {"plugins": plugins, "tolerance": tolerance, "console": console(stderr=as_json)}
        chosen = records if len(records) == 1 else draw(records, rerun)
        again = [make_again(record, **given) for record in chosen]
        found += [{"file": one.record.run_id, "problem": problem} for one in again for problem in one.problems]
    if as_json:
        print_json(found)
    else:
        for row in [*map(str, again), *(f"{row['file']}: {row['problem']}" for row in found)]:
            click.echo(row)
        click.echo(f"{len(found)} problem(s)" if found else "every record is sound")
    sys.exit(1 if found else 0)


def _checked(path: str, root: Path | None) -> tuple[list[dict[str, str]], list[Any]]:
    """What is wrong with the records at a path, or with a run by its id or labels; and the records."""
    from harness.errors import UserError
    from harness.records.find import find_run, record_of
    from harness.records.verify import records_under, unsound, verify

    if Path(path).exists():
        return verify(Path(path)), [record for _, record in records_under(Path(path)) if not isinstance(record, str)]
    run = find_run(path, root)
    if run is None:
        raise UserError(f"{path}: no file, folder or run of this name; see zoobench ls and --results")
    record = record_of(run)
    problem = unsound(record, run)
    return [{"file": str(run), "problem": problem}] if problem else [], [record]
