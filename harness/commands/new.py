"""`zoobench new`: the first file of an architecture or a task, from `templates/`."""

import re
from pathlib import Path

import click

from harness.errors import UserError
from zoo import files


@click.command()
@click.argument("name")
@click.option("--task", is_flag=True, help="Start a task instead.")
@click.option("--board", is_flag=True, help="Start a repository for a leaderboard instead, in a folder NAME.")
def command(name: str, task: bool, board: bool) -> None:
    """Start an architecture, a task or a leaderboard.

    Writes NAME.py, which works as it is, and NAME.yaml, a suite that runs it.
    """
    if board:
        from harness.sharing.repository import write_repository

        for path in write_repository(name):
            click.echo(f"wrote {path}")
        click.echo(f"next: cd {name}; git init; zoobench run {name}.yaml; zoobench publish {name}.yaml")
        return
    for path in write_files(name, Path(), task=task):
        click.echo(f"wrote {path}")
    click.echo(f"next: zoobench check {name} --plugin {name}.py; zoobench run {name}.yaml")


def write_files(name: str, folder: Path, *, task: bool = False) -> list[Path]:
    """Write NAME.py and NAME.yaml into a folder.

    Raises:
        UserError: the name cannot be one, is taken, or a file is in the way.
    """
    from jinja2 import Environment, PackageLoader

    kind = "task" if task else "architecture"
    _check(name, kind)
    environment = Environment(loader=PackageLoader("harness.commands", "templates"), keep_trailing_newline=True)
    paths = [folder / f"{name}{suffix}" for suffix in (".py", ".yaml")]
    for path in paths:
        if path.exists():
            raise UserError("is in the way; nothing was written", file=path)
    title = "".join(part.capitalize() for part in name.split("_"))
    for path in paths:
        template = environment.get_template(f"{kind}{path.suffix}.j2")
        files.write(path, template.render(name=name, title=title))
    return paths


def _check(name: str, kind: str) -> None:
    import tasks
    from zoo import architectures

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        article = "a" if kind == "task" else "an"
        raise UserError(f"{name!r} cannot be {article} {kind}'s name: use lower-case letters, digits and underscores")
    for taken, by in ((architectures.names(), "an architecture"), (tasks.names(), "a task")):
        if name in taken:
            raise UserError(f"{name!r} is already {by}; choose another name")
