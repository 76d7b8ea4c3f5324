"""`zoobench export`."""

from pathlib import Path
from typing import Any

import click

from harness.commands.common import json_option, plugin_option, print_json, root_option, weights_option
from harness.errors import UserError


@click.command()
@click.argument("reference", metavar="RUN")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(["zoo", "transformers", "rwkv"]), default="zoo", show_default=True)
@plugin_option
@weights_option
@root_option
@json_option
def command(
    reference: str,
    folder: Path,
    kind: Any,
    weights_options: dict[str, Any],
    plugins: tuple[str, ...],
    root: Path | None,
    as_json: bool,
) -> None:
    """Write the model of RUN to FOLDER, for other programs.

    For `zoo.load`, for transformers, or as RWKV's official model.pth. A transformers folder gives the same logits
    there, or is not written.
    """
    from harness.records.find import open_model
    from zoo import published

    model = open_model(reference, root, **weights_options)
    try:
        written = published.export(model, folder, kind)
    except published.PretrainedError as error:
        raise UserError(str(error)) from None
    if as_json:
        print_json({"folder": str(written), "format": kind, "files": sorted(file.name for file in written.iterdir())})
    else:
        click.echo(f"written to {written}/")
