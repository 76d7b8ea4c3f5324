"""`zoobench verify`."""

import sys
from pathlib import Path

import click

from harness.commands.common import json_option, print_json


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@json_option
def command(path: Path, as_json: bool) -> None:
    """Check that the records under PATH are sound.

    Each has its keys, and an id that is the hash of its own spec and data; runs of one task and seed with one learning
    schedule consumed the same batches; published records are unchanged.
    """
    from harness.records.verify import verify

    found = verify(path)
    if as_json:
        print_json(found)
    else:
        for row in found:
            click.echo(f"{row['file']}: {row['problem']}")
        click.echo(f"{len(found)} problem(s)" if found else "every record is sound")
    sys.exit(1 if found else 0)
