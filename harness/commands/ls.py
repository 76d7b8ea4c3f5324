"""`zoobench ls`: tables of what is known, and the pages of the docs that list architectures and tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.commands.common import json_option, output
from harness.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

KINDS = ("architectures", "tasks", "suites", "corpora", "questions")
PAGES = {"architectures": "zoo.md.j2", "tasks": "tasks.md.j2"}
"""The template of each kind that has a page."""


@click.command()
@click.argument("kind", type=click.Choice(KINDS), default=KINDS[0])
@click.option("--markdown", is_flag=True, help="The page of architectures or tasks in the docs.")
@json_option
def command(kind: str, markdown: bool, as_json: bool) -> None:
    """List architectures, tasks, suites, corpora, or questions.

    The questions are those for `eval` that need no hub.
    """
    from harness.commands import catalog

    if not markdown:
        output(catalog.rows(kind), lambda rows, console: show_table(kind, rows, console), as_json=as_json)
    elif kind in PAGES:
        click.echo(page(kind), nl=False)
    else:
        raise UserError(f"there is no page of {kind}; only of {' and '.join(PAGES)}", key="--markdown")


def show_table(kind: str, rows: list[dict[str, Any]], console: Console) -> None:
    """Rows of the catalog as a table of their main columns."""
    from rich.table import Table

    from harness.commands.catalog import KINDS, format_error, format_value
    from tasks import corpora

    table, columns = Table(header_style="bold"), KINDS[kind].columns
    for key in columns:
        table.add_column(key, no_wrap=key == "name", overflow="fold")
    for row in rows:
        table.add_row(*((format_error if key == "error" else format_value)(row[key]) for key in columns))
    console.print(table)
    if kind == "corpora":
        console.print(f"fetched corpora are kept in {corpora.home()}", highlight=False, markup=False, soft_wrap=True)


def page(kind: str) -> str:
    """A page of the docs in Markdown, family by family."""
    from jinja2 import Environment, PackageLoader

    from harness.commands import catalog

    templates = PackageLoader("harness.commands", "templates")
    environment = Environment(loader=templates, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(error=catalog.format_error, cell=catalog.format_value)
    environment.filters.update(pairs=catalog.format_options, traits=_traits)
    return environment.get_template(PAGES[kind]).render(known=catalog.rows(kind)) + "\n"


def _traits(row: dict[str, Any]) -> str:
    """`strict, resumable, max`."""
    words = [row["causal"], "resumable" if row["resumable"] else "", row["length"] if row["length"] != "any" else ""]
    return ", ".join(word for word in [*words, "stochastic" if row["stochastic"] else ""] if word)
