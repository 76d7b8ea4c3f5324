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
@click.option(
    "--full",
    is_flag=True,
    help="Make all batches and baselines anew, train every record's first steps, and solve all sizes.",
)
@rerun_options(0)
@json_option
def command(
    path: str,
    root: Path | None,
    plugins: tuple[str, ...],
    full: bool,
    rerun: int,
    tolerance: float | None,
    as_json: bool,
) -> None:
    """Check that records are sound; with --rerun, make some again.

    PATH is a record or any folder of records; RUN is an id, or labels such as quick/pre_ln/text/0. All that a record
    implies is computed again: its id and digest, its curve and budget, its gates, the data it was trained on, the size
    of its model, and its scores where its weights lie beside it. Nothing that a folder names is imported. Runs are made
    again in a temporary folder.
    """
    from harness.errors import printable
    from harness.execute.recompute import Recompute
    from harness.execute.rerun import draw
    from harness.execute.rerun import rerun as make_again
    from harness.records.verify import verify

    screen = console(stderr=True)
    with screen.status("") as status, Recompute(plugins, full=full) as deeper:
        found, records = verify(_path(path, root), deeper, status.update, deeper.suite)
    signed, wrong = _signatures(Path(path))
    found, again = found + wrong, []
    if rerun and not found:
        given: dict[str, Any] = {"plugins": plugins, "tolerance": tolerance, "console": console(stderr=as_json)}
        chosen = records if len(records) == 1 else draw(records, rerun)
        again = [make_again(record, **given) for record in chosen]
        found += [{"file": one.record.run_id, "problem": problem} for one in again for problem in one.problems]
    if as_json:
        print_json(found)
    else:
        for row in [*map(str, again), *(f"{row['file']}: {row['problem']}" for row in found)]:
            click.echo(printable(row))
        for line in signed:
            click.echo(printable(line))
        if undigested := sum(not record.digest for record in records):
            click.echo(f"{undigested} record(s) without a digest: older code wrote them")
        for why, count in deeper.left_out.items():
            click.echo(printable(f"{count} record(s) not checked in full: {why}"))
        click.echo(f"{len(found)} problem(s)" if found else "every record is sound")
    sys.exit(1 if found else 0)


def _signatures(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Lines about who signed what lies under a path, and signatures that do not hold."""
    from harness.errors import UserError
    from harness.records.signature import SIGNATURE, allowed_signers, signer

    signed, wrong, known = list[str](), list[dict[str, str]](), allowed_signers()
    for file in sorted(path.rglob(SIGNATURE)):
        try:
            who = signer(file.parent) if known else "somebody; no file of allowed signers is known ($ZOOBENCH_SIGNERS)"
            signed.append(f"{file.parent}: signed by {who}")
        except UserError as error:
            wrong.append({"file": str(file), "problem": error.message})
    return signed, wrong


def _path(path: str, root: Path | None) -> Path:
    """A file or folder, or the folder of a run by its id or labels."""
    from harness.errors import UserError
    from harness.records.find import find_run

    if Path(path).exists():
        return Path(path)
    run = find_run(path, root)
    if run is None:
        raise UserError(f"{path}: no file, folder or run of this name; see zoobench ls and --results")
    return run
