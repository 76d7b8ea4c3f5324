"""`zoobench generate`."""

import sys
from pathlib import Path
from typing import Any

import click

from harness.commands.common import json_option, plugin_option, print_json, root_option, weights_option
from harness.errors import UserError, printable_lines


@click.command()
@click.argument("reference", metavar="RUN")
@click.option("--prompt", default="", metavar="TEXT", help="What the text begins with; - reads standard input.")
@click.option("--tokens", type=click.IntRange(1), default=256, show_default=True, help="Tokens to write at most.")
@click.option("--temperature", type=click.FloatRange(0), default=1.0, show_default=True, help="0 takes the likeliest.")
@click.option("--top-k", type=click.IntRange(1), help="Choose among the K likeliest tokens only.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Among the likeliest that together reach P.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text.")
@plugin_option
@weights_option
@root_option
@json_option
def command(
    reference: str,
    prompt: str,
    weights_options: dict[str, Any],
    plugins: tuple[str, ...],
    root: Path | None,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Write the text that follows a prompt, by the model of RUN.

    RUN is a run's path, id or labels (quick/pre_ln/text/0), or published weights (a path, rwkv:file.pth, hf:org/name).
    """
    from harness.records.find import open_model
    from zoo.generate import stream_text

    written, screen = list[str](), sys.stdout.isatty()
    try:
        if prompt == "-":
            prompt = sys.stdin.buffer.read().decode()
        model = open_model(reference, root, **weights_options)
        for piece in stream_text(model, prompt, **sampling):
            written.append(piece)
            if not as_json:
                click.echo(printable_lines(piece) if screen else piece, nl=False)
    except ValueError as error:
        raise UserError(str(error), key=reference) from None
    except KeyboardInterrupt:
        click.echo()
        sys.exit(130)
    if as_json:
        print_json({"run": reference, "prompt": prompt, "text": "".join(written), **sampling})
    else:
        click.echo()
