"""`zoobench fetch`."""

import click

from harness.commands.common import json_option, print_json


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="CORPUS...")
@json_option
def command(names: tuple[str, ...], as_json: bool) -> None:
    """Download each CORPUS that is not here yet, and verify it.

    `zoobench ls corpora` lists them.
    """
    from harness.catalog import entries as catalog

    rows = []
    for name in names:
        rows.append(row := catalog.fetch(name))
        if not as_json:
            click.echo(f"{row['name']}: {row['path']}")
    if as_json:
        print_json(rows)
