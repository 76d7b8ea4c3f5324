"""`zoobench query`."""

import csv
import sys
from pathlib import Path

import click

from harness.commands.common import console, json_option, print_json, root_option
from harness.errors import printable


@click.command()
@click.argument("sql")
@root_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV instead of a table.")
@json_option
def command(sql: str, root: Path | None, as_csv: bool, as_json: bool) -> None:
    """Ask all records and curves in SQL (DuckDB).

    The tables are `records` (a row a run) and `curves` (a row a point), of published runs and of your own, such as:

    zoobench query "SELECT architecture, avg(test) FROM records WHERE task = 'text' GROUP BY ALL ORDER BY 2"
    """
    from harness.board.formats import csv_cell
    from harness.records.frames import query

    answer = query(sql, root)
    if as_json:
        print_json(answer.to_pylist())
    elif as_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows(
            map(csv_cell, row) for row in [answer.column_names, *zip(*answer.to_pydict().values(), strict=True)]
        )
    else:
        _show(answer.to_pydict())


def _show(columns: dict[str, list[object]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for name in columns:
        table.add_column(Text(printable(name)))
    for row in zip(*columns.values(), strict=True):
        table.add_row(*(Text(f"{value:.6g}" if isinstance(value, float) else printable(str(value))) for value in row))
    console().print(table)
