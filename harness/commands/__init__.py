"""The command line: a file a verb, which parses, calls and prints. None imports more than it needs to be called."""

import errno
import importlib
import os
import sys
import threading
from typing import Any

import click

from harness.commands import completion
from harness.errors import UserError, no_memory, one_line, os_error
from harness.version import __version__

GROUPS = {
    "Run": ("run", "plan", "validate", "status"),
    "Read": ("board", "claims", "site", "plot", "compare", "query"),
    "Publish": ("publish", "submit", "review", "merge", "verify"),
    "Architectures, tasks, data": ("ls", "show", "draw", "check", "new", "fetch"),
    "Models and machines": ("bench", "generate", "eval", "export", "warm", "doctor"),
}
"""In the order of `--help`; the file of a verb's name holds its `command`."""
VERBS = tuple(verb for verbs in GROUPS.values() for verb in verbs)


class Commands(click.Group):
    """Finds a verb's file; bad input or a file that cannot be used becomes one line and status 2, Ctrl-C status 130."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"harness.commands.{cmd_name}").command
        completion.attach(cmd_name, command)
        command.short_help = (command.help or "").split("\n\n")[0]  # or click cuts the line where a terminal ends
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, verbs in GROUPS.items():
            with formatter.section(title):
                commands = ((verb, self.get_command(ctx, verb)) for verb in verbs)
                formatter.write_dl([(f"{verb:8}", command.short_help or "") for verb, command in commands if command])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        if args[0] not in VERBS and not args[0].startswith("-"):
            from zoo.registry import nearest

            raise UserError(f"unknown command {args[0]!r}{nearest(args[0], VERBS)}; see zoobench --help")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (UserError, OSError, ValueError, MemoryError, RuntimeError) as error:
            said = _said(error)
            if said is None:
                raise
            click.echo(f"zoobench: {said}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt as error:
            click.echo("\nstopped; the same command goes on from here", err=True)
            ctx.exit(128 + (error.args[0] if error.args else 2))


def _said(error: Exception) -> str | None:
    """What an error tells the user; None of one that is a mistake of ours, or the end of a pipe."""
    from zoo.types import BadInput

    if isinstance(error, OSError):
        return None if error.errno == errno.EPIPE else os_error(error)
    if no_memory(error):
        return one_line(f"more memory was asked for than there is; {error}".rstrip("; "))
    return str(error) if isinstance(error, UserError) else one_line(str(error)) if isinstance(error, BadInput) else None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="zoobench")
def main() -> None:
    """Which sequence architecture is better, at what, for what cost, and how sure are we?

    A SUITE is the name of one that ships (`zoobench ls suites`) or the path of a YAML file; a RUN is an id or labels,
    such as quick/pre_ln/text/0. `zoobench COMMAND --help` has the options.
    """


def entry() -> None:
    """`zoobench`: no thread that a plug-in leaves running keeps the command from ending."""
    try:
        main(prog_name="zoobench")
    except SystemExit as error:
        if all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
            raise
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(error.code if isinstance(error.code, int) else 0)
