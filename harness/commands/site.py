"""`zoobench site`."""

from pathlib import Path

import click

from harness.commands.common import root_option


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default="site")
@click.argument("suites", nargs=-1, metavar="[SUITE]...")
@root_option
@click.option("--serve", "serving", is_flag=True, help="Serve it to this machine alone, and follow suites that run.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8008, show_default=True, help="The port of --serve; 0 for any."
)
def command(folder: Path, suites: tuple[str, ...], root: Path | None, serving: bool, port: int) -> None:
    """Make a static site of all results, or of SUITEs.

    It goes to FOLDER [default: site]. Open FOLDER/index.html in a browser, or put FOLDER on any web server.
    """
    from harness.site.build import build

    made = build(folder, suites, root, live=serving)
    count = f"{len(made)} suite{'s' * (len(made) > 1)}"
    click.echo(f"{count} in {folder}/; open {(folder / 'index.html').resolve()}")
    if serving:
        from harness.site.serve import serve

        serve(folder, suites, root, port, click.echo)
