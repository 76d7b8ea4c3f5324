"""`zoobench ls`: tables of what is known, and the pages of the docs that list architectures and tasks."""

from typing import Any

import click

from harness.commands.common import json_option, output
from harness.errors import UserError

KINDS = ("architectures", "tasks", "suites", "corpora", "questions")
PAGES = {"architectures": "zoo.md.j2", "tasks": "tasks.md.j2"}
"""The template of each kind that has a page."""


@click.command()
@click.argument("kind", type=click.Choice(KINDS), default=KINDS[0])
@click.option("--since", metavar="YEAR", type=int, help="Architectures whose paper is of this year or later.")
@click.option("--markdown", is_flag=True, help="The page of architectures or tasks in the docs.")
@json_option
def command(kind: str, since: int | None, markdown: bool, as_json: bool) -> None:
    """List architectures, tasks, suites, corpora, or questions.

    The questions are those for `eval` that need no hub.
    """
    from harness.catalog import entries as catalog

    if since is not None and (kind != "architectures" or markdown):
        raise UserError("only the list of architectures goes by year", key="--since")
    if not markdown:
        rows = [row for row in catalog.rows(kind) if since is None or (row["year"] or 0) >= since]
        output(rows, lambda rows, console: catalog.show_table(kind, rows, console), as_json=as_json)
    elif kind in PAGES:
        click.echo(page(kind), nl=False)
    else:
        raise UserError(f"there is no page of {kind}; only of {' and '.join(PAGES)}", key="--markdown")


def page(kind: str) -> str:
    """A page of the docs in Markdown, family by family."""
    from jinja2 import Environment, PackageLoader

    from harness.catalog import entries as catalog

    templates = PackageLoader("harness.commands", "templates")
    environment = Environment(loader=templates, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(error=catalog.format_error, cell=catalog.format_value)
    environment.filters.update(pairs=catalog.format_options, traits=_traits)
    return environment.get_template(PAGES[kind]).render(known=catalog.rows(kind)) + "\n"


def _traits(row: dict[str, Any]) -> str:
    """`strict, resumable, max`."""
    words = [row["causal"], "resumable" if row["resumable"] else "", row["length"] if row["length"] != "any" else ""]
    return ", ".join(word for word in [*words, "stochastic" if row["stochastic"] else ""] if word)
