"""`zoobench show`."""

import click

from harness.commands.common import json_option, output


@click.command()
@click.argument("name")
@json_option
def command(name: str, as_json: bool) -> None:
    """Show everything known of NAME.

    NAME is an architecture, a task, a suite, a corpus, or a question.
    """
    from harness.catalog import entries as catalog

    output(catalog.find(name), catalog.show_row, as_json=as_json)
