"""`zoobench eval`."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.commands.common import (
    console,
    json_option,
    output,
    plugin_option,
    trust_option,
    weights_option,
    written_root_option,
)
from harness.errors import UserError

FOLDER = click.Path(exists=True, path_type=Path, file_okay=False)


@click.command()
@click.argument("reference", metavar="RUN")
@click.option("--tasks", required=True, metavar="NAME,...", help="Tasks and groups of lm-evaluation-harness.")
@click.option("--limit", type=click.IntRange(1), help="Documents of each task [default: all].")
@click.option("--fewshot", type=click.IntRange(0), help="Solved examples before a question [default: the task's].")
@click.option("--max-length", type=click.IntRange(1), help="Tokens the model is given [default: as trained].")
@click.option("--batch-size", type=click.IntRange(1), help="Sequences at a time [default: by their length].")
@click.option("--include", type=FOLDER, help="A folder of tasks, which are code.")
@trust_option
@click.option("--data", type=FOLDER, help="Files of `local_*` tasks.")
@plugin_option
@weights_option
@written_root_option
@json_option
def command(
    reference: str,
    tasks: str,
    weights_options: dict[str, Any],
    plugins: tuple[str, ...],
    root: Path | None,
    trust: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Let RUN answer tasks of lm-evaluation-harness.

    RUN is a run's folder, its id, or labels such as quick/pre_ln/text/0; its answers are stored in its record. Or it
    is published weights: a path, rwkv:file.pth, or hf:org/name on the hub. `zoobench ls questions` lists the tasks that
    come with zoobench; hf:NAME is a task of lm-eval's whose data may come from the hub.
    """
    from harness.lm_eval.evaluate import show
    from harness.lm_eval.evaluate_runs import evaluate_run
    from harness.suite.trust import check

    if options["include"] is not None:
        check([options["include"].resolve()], trusted=trust, error=partial(UserError, key="--include"))
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    terms = {name: options.pop(name) for name in ("limit", "fewshot", "max_length")}
    with console(stderr=True).status("") as status:
        evaluation, record = evaluate_run(
            reference, names, root, terms, weights_options=weights_options, report=status.update, **options
        )
    output(evaluation, show, as_json=as_json)
    if record is not None and not as_json:
        click.echo(f"stored in {record}; `zoobench board` shows it")
