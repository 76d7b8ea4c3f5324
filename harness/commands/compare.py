"""`zoobench compare`."""

from pathlib import Path

import click

from harness.commands.common import console, json_option, print_json, root_option, suite_options


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.argument("suite", required=False)
@suite_options
@root_option
@json_option
def command(
    first: str, second: str, suite: str | None, overrides: tuple[str, ...], root: Path | None, as_json: bool
) -> None:
    """Compare architectures A and B on every task of SUITE.

    Without SUITE, on those of every suite with results that has both.
    """
    import dataclasses

    from harness.board import report
    from harness.board.comparison import section
    from harness.board.tables import print_section, text

    found = report.compare(first, second, suite, overrides, root)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    screen = console()
    print_section(section(found), screen)
    screen.print(text(f"{found.verdict}."))
