"""The command line: parses, calls, prints. Each command imports what it needs, so that `--help` is instant."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from harness.errors import UserError
from harness.version import __version__

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
set_option = click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the suite.")
difficulty_option = click.option(
    "--difficulty", metavar="NAME", help="The tasks of SUITE at smoke, small or paper size; it then is SUITE-NAME."
)


def suite_options(command: Callable[..., None]) -> Callable[..., None]:
    """`--set` and `--difficulty`, both given to `command` as `overrides`."""

    @set_option
    @difficulty_option
    @functools.wraps(command)
    def both(*args: Any, overrides: tuple[str, ...], difficulty: str | None, **given: Any) -> None:
        chosen = (f"difficulty={difficulty}",) if difficulty else ()
        command(*args, overrides=(*overrides, *chosen), **given)

    return both


root_option = click.option(
    "--results",
    "root",
    type=click.Path(path_type=Path),
    help="Where results go [default: $ZOOBENCH_RESULTS or results].",
)


def _assigned(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """`KEY=VALUE` pairs as a mapping."""
    from harness.suite.load import assignment

    return dict(map(assignment, given))


opening_option = click.option(
    "--set",
    "opening",
    multiple=True,
    callback=_assigned,
    metavar="KEY=VALUE",
    help="An option of published weights, such as tokenizer=…",
)


class Group(click.Group):
    """Prints a UserError as one line and leaves with status 2; Ctrl-C with 130."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"zoobench: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("\nstopped; the same command goes on from here", err=True)
            ctx.exit(130)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            from zoo.registry import nearest

            raise UserError(f"unknown command {args[0]!r}{nearest(args[0], self.commands)}; see zoobench --help")
        return super().resolve_command(ctx, args)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="zoobench")
def main() -> None:
    """Which sequence architecture is better, at what, for what cost, and how sure are we?

    A SUITE is the name of one that ships (`zoobench ls suites`) or the path of a YAML file.
    """


def emit(data: Any) -> None:
    """JSON on standard output, with null for NaN."""
    from harness.records.store import to_json

    click.echo(to_json(data), nl=False)


def console(*, stderr: bool = False) -> Any:
    """A terminal, or 120 columns of plain text."""
    from rich.console import Console

    plain = Console(stderr=stderr)
    return plain if plain.is_terminal else Console(stderr=stderr, width=120)


@main.command()
@click.argument("suite")
@suite_options
@root_option
@click.option("--workers", type=click.IntRange(1), help="Runs at a time [default: one per core].")
@json_option
def run(suite: str, overrides: tuple[str, ...], root: Path | None, workers: int | None, as_json: bool) -> None:
    """Run what SUITE still lacks, then print its board. The same command resumes."""
    from harness.execute import runner

    results = runner.run(suite, overrides=overrides, root=root, workers=workers, console=console(stderr=as_json))
    if results.ran or not (results.folder / "board").is_dir():
        _board((suite,), overrides, root, as_json=as_json, save=True)
    elif as_json:
        _board((suite,), overrides, root, as_json=True, save=False)
    else:
        click.echo(f"nothing was left to run; the board: {results.folder / 'board' / 'index.html'}")
    sys.exit(0 if results.ok else 1)


@main.command()
@click.argument("suite")
@suite_options
@json_option
def plan(suite: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show every run of SUITE: solved size, FLOPs, tokens and time, before anything runs."""
    from harness.execute.runner import load_data
    from harness.plan import estimate
    from harness.plan.expand import expand
    from harness.suite.load import load

    loaded = load(suite, overrides)
    load_data(loaded, expand(loaded))
    cells = estimate.plan(loaded)
    if as_json:
        emit([cell.to_dict() for cell in cells])
    else:
        estimate.show(cells, loaded, console())


@main.command()
@click.argument("suite")
@suite_options
@json_option
def validate(suite: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check SUITE without running anything."""
    from harness.plan.expand import expand
    from harness.plan.sizes import count_runs, solve
    from harness.suite.load import load

    loaded = load(suite, overrides)
    specs = expand(loaded)
    counts = count_runs(specs, solve(specs, loaded), loaded)
    if as_json:
        emit({"suite": loaded.name, "valid": True, **asdict(counts)})
    else:
        click.echo(f"{loaded.name} is valid: {counts}")


@main.command()
@click.argument("suites", nargs=-1, required=True, metavar="SUITE...")
@suite_options
@root_option
@json_option
def board(suites: tuple[str, ...], overrides: tuple[str, ...], root: Path | None, as_json: bool) -> None:
    """Print the ranking of each SUITE and write it to results/<suite>/board/."""
    _board(suites, overrides, root, as_json=as_json, save=True)


def _board(
    suites: tuple[str, ...], overrides: tuple[str, ...], root: Path | None, *, as_json: bool, save: bool
) -> None:
    from harness import publish

    rows: list[dict[str, Any]] = []
    for suite in suites:
        made, folder = publish.board(suite, overrides, root, save=save)
        if as_json:
            rows += made.to_rows()
        else:
            publish.show(made, console())
            click.echo(f"written to {folder}/: index.html, board.md, board.csv, board.json")
    if as_json:
        emit(rows)


@main.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.argument("suite")
@suite_options
@root_option
@json_option
def compare(first: str, second: str, suite: str, overrides: tuple[str, ...], root: Path | None, as_json: bool) -> None:
    """Compare architectures A and B on every task of SUITE, seed by seed."""
    from harness import publish

    rows = publish.compare(first, second, suite, overrides, root)
    if as_json:
        emit(rows)
    else:
        publish.show_comparison(first, second, rows, console())


@main.command()
@click.argument("suite", required=False)
@suite_options
@root_option
@json_option
def status(suite: str | None, overrides: tuple[str, ...], root: Path | None, as_json: bool) -> None:
    """How many runs of SUITE (or of every suite with results) are finished, under way, or to do."""
    from harness import publish

    rows = publish.status(suite, root, overrides)
    if as_json:
        emit(rows)
    for row in [] if as_json else rows:
        counts = ", ".join(f"{n} {what}" for what, n in row["counts"].items() if n)
        click.echo(f"{row['suite']}: {counts or 'nothing yet'}")


@main.command()
@click.argument(
    "what",
    type=click.Choice(["architectures", "tasks", "suites", "corpora", "questions"]),
    default="architectures",
)
@click.option("--markdown", is_flag=True, help="The page of architectures or tasks in the docs.")
@json_option
def ls(what: str, markdown: bool, as_json: bool) -> None:
    """List the architectures, tasks, suites, corpora, or questions for `eval`, that are known."""
    from harness import listing

    if markdown:
        if what not in listing.PAGES:
            raise UserError(f"there is no page of {what}; only of {' and '.join(listing.PAGES)}", key="--markdown")
        click.echo(listing.markdown(what), nl=False)
        return
    rows = listing.rows(what)
    if as_json:
        emit(rows)
    else:
        listing.show(what, rows, console())


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="CORPUS...")
@json_option
def fetch(names: tuple[str, ...], as_json: bool) -> None:
    """Download each CORPUS that is not here yet, and verify it (`zoobench ls corpora` lists them)."""
    from harness import listing

    rows = []
    for name in names:
        rows.append(row := listing.fetch(name))
        if not as_json:
            click.echo(f"{row['name']}: {row['path']}")
    if as_json:
        emit(rows)


@main.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Everything known of NAME: an architecture, task, suite or corpus."""
    from harness import listing

    found = listing.find(name)
    if as_json:
        emit(found)
    else:
        listing.show_one(found, console())


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--plugin", "plugins", multiple=True, help="A .py file or module to import first.")
@json_option
def check(names: tuple[str, ...], plugins: tuple[str, ...], as_json: bool) -> None:
    """Test that each NAME keeps its contract.

    An architecture's: causality, resumption, padding, gradients and more. A task's: pure examples, disjoint splits,
    shapes, fingerprint, baselines and more.
    """
    from harness import checking

    found = checking.check(names, plugins)
    if as_json:
        emit(found)
    else:
        checking.show(found, console())
    sys.exit(0 if all(row["status"] != "failed" for row in found) else 1)


@main.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@json_option
def verify(path: Path, as_json: bool) -> None:
    """Check the records under PATH: format, run ids, data hashes, and that published ones are unchanged."""
    from harness import publish

    problems = publish.verify(path)
    if as_json:
        emit(problems)
    else:
        for problem in problems:
            click.echo(f"{problem['file']}: {problem['problem']}")
        click.echo(f"{len(problems)} problem(s)" if problems else "every record is sound")
    sys.exit(1 if problems else 0)


@main.command("publish")
@click.argument("suite")
@suite_options
@root_option
def publish_command(suite: str, overrides: tuple[str, ...], root: Path | None) -> None:
    """Mark the records of SUITE as published: other people's `run` will redo them, `board` shows them."""
    from harness.records.store import Store
    from harness.suite.load import load

    store = Store(load(suite, overrides).suite.suite, root)
    click.echo(f"{store.publish()} records of {store.folder} are marked as published")


@main.command()
@click.argument("reference", metavar="RUN")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(["zoo", "transformers", "rwkv"]), default="zoo", show_default=True)
@opening_option
@root_option
@json_option
def export(reference: str, folder: Path, kind: str, opening: dict[str, Any], root: Path | None, as_json: bool) -> None:
    """Write the model of RUN to FOLDER: for `zoo.load`, for transformers, or as RWKV's official model.pth.

    A transformers folder gives the same logits there, or is not written.
    """
    from harness.records.find import open_model
    from zoo.published import PretrainedError, rwkv, save, to_transformers

    model = open_model(reference, root, **opening)
    try:
        if kind == "rwkv":
            written = rwkv.save(model, folder / "model.pth").parent
        else:
            written = save(model, folder) if kind == "zoo" else to_transformers.save(model, folder)
    except PretrainedError as error:
        raise UserError(str(error)) from None
    if as_json:
        emit({"folder": str(written), "format": kind, "files": sorted(file.name for file in written.iterdir())})
    else:
        click.echo(f"written to {written}/")


@main.command()
@click.argument("name")
@click.option("--task", is_flag=True, help="Start a task instead.")
def new(name: str, task: bool) -> None:
    """Start an architecture or a task of your own: writes NAME.py and a suite NAME.yaml that runs it."""
    from harness import listing

    for path in listing.new(name, task=task):
        click.echo(f"wrote {path}")
    click.echo(f"next: zoobench check {name} --plugin {name}.py; zoobench run {name}.yaml")


@main.command("eval")
@click.argument("reference", metavar="RUN")
@click.option("--tasks", required=True, metavar="NAME,...", help="Tasks and groups of lm-evaluation-harness.")
@click.option("--limit", type=click.IntRange(1), help="Documents of each task [default: all].")
@click.option("--fewshot", type=click.IntRange(0), help="Solved examples before a question [default: the task's].")
@click.option("--max-length", type=click.IntRange(1), help="Tokens the model is given [default: as trained].")
@click.option("--batch-size", type=click.IntRange(1), help="Sequences at a time [default: by their length].")
@click.option("--include", type=click.Path(exists=True, path_type=Path, file_okay=False), help="A folder of tasks.")
@click.option("--data", type=click.Path(exists=True, path_type=Path, file_okay=False), help="Files of `local_*` tasks.")
@opening_option
@root_option
@json_option
def eval_command(
    reference: str, tasks: str, opening: dict[str, Any], root: Path | None, as_json: bool, **given: Any
) -> None:
    """Let RUN answer tasks of lm-evaluation-harness. Answers of a run are stored in its record.

    RUN is a run's folder, its id, or labels such as quick/pre_ln/text/0; or published weights: a path, an id on the
    hub, KIND:... with a kind of `zoo.published`. `zoobench ls questions` lists what comes with zoobench.
    """
    from harness.lm_eval import evaluate
    from harness.lm_eval.answer import ask_one

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    terms = {name: given.pop(name) for name in ("limit", "fewshot", "max_length")}
    with console(stderr=True).status("") as status:
        found, record = ask_one(reference, names, root, terms, opening=opening, tell=status.update, **given)
    if as_json:
        emit(found)
    else:
        evaluate.show(found, console())
        if record is not None:
            click.echo(f"stored in {record}; `zoobench board` shows it")


@main.command("doctor")
@json_option
def doctor_command(as_json: bool) -> None:
    """What this machine offers: device, precision, measured matmul speed, packages, kernels and data."""
    from harness import doctor as diagnosis

    found = diagnosis.examine()
    if as_json:
        emit(found)
    else:
        diagnosis.show(found, console())


@main.command("bench")
@click.argument("names", nargs=-1, required=True, metavar="ARCH...")
@click.option(
    "--lengths",
    default="256,2048",
    show_default=True,
    metavar="T[xB],...",
    help="Lengths, with the batch where it is not 4096 // length: 256x8,2048x2.",
)
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@click.option("--role", type=click.Choice(["lm", "classify"]), help="[default: lm where it can, or its peers' role]")
@click.option("--width", type=click.IntRange(1), default=256, show_default=True)
@click.option("--depth", type=click.IntRange(1), help="Layers [default: the architecture's own].")
@click.option("--set", "options", multiple=True, metavar="KEY=VALUE", help="An option of every ARCH.")
@click.option("--contexts", default="", metavar="T,...", help="Context lengths to decode behind, beside each length.")
@click.option("--reference", default="pre_ln", show_default=True, help="Measured in turn with each row, or `none`.")
@click.option("--peers", is_flag=True, help="Measure other implementations in turn as well (extra `oracles`).")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Rounds; medians are reported.")
@click.option("--seconds", type=click.FloatRange(0), default=1.0, show_default=True, help="Of training in a round.")
@click.option("--threads", type=click.IntRange(1), help="[default: one for each core]")
@click.option("--plugin", "plugins", multiple=True, help="A .py file or module to import first.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write bench.json, bench.md, time.png.")
@json_option
def bench_command(names: tuple[str, ...], out: Path | None, as_json: bool, **asked: Any) -> None:
    """Measure the speed and memory of each ARCH, in turn with a reference and with other implementations."""
    from harness import bench
    from harness.bench import report

    screen = console(stderr=True)

    def keep(rows: list[dict[str, Any]]) -> None:
        if out is not None:
            report.save(rows, out)
        screen.print(report.line(rows[-1]), highlight=False, markup=False)

    plan = bench.plan(**asked)
    with screen.status("starting") as status:
        rows = bench.bench(names, plan, tell=status.update, keep=keep)
    if as_json:
        emit(rows)
    else:
        report.show(rows, console())
        if out is not None:
            click.echo(f"written to {out}")
    sys.exit(0 if all(row["status"] in ("ok", "unsupported") for row in rows) else 1)


@main.command("generate")
@click.argument("model", metavar="RUN")
@click.option("--prompt", default="", metavar="TEXT", help="What the text begins with; - reads standard input.")
@click.option("--tokens", type=click.IntRange(1), default=256, show_default=True, help="Tokens to write at most.")
@click.option("--temperature", type=click.FloatRange(0), default=1.0, show_default=True, help="0 takes the likeliest.")
@click.option("--top-k", type=click.IntRange(1), help="Choose among the K likeliest tokens only.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Among the likeliest that together reach P.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text.")
@opening_option
@root_option
@json_option
def generate_command(
    model: str, prompt: str, opening: dict[str, Any], root: Path | None, as_json: bool, **options: Any
) -> None:
    """Write what follows a prompt, by the model of RUN: a finished run, a folder, or published weights.

    RUN is a run's path, id or labels (quick/pre_ln/text/0), or what zoo.load opens (org/name, rwkv:file.pth).
    """
    from harness.records.find import open_model
    from zoo.generate import stream_text

    written: list[str] = []
    try:
        if prompt == "-":
            prompt = sys.stdin.buffer.read().decode()
        opened = open_model(model, root, **opening)
        for piece in stream_text(opened, prompt, **options):
            written.append(piece)
            if not as_json:
                click.echo(piece, nl=False)
    except ValueError as error:
        raise UserError(str(error), key=model) from None
    except KeyboardInterrupt:
        click.echo()
        sys.exit(130)
    if as_json:
        emit({"run": model, "prompt": prompt, "text": "".join(written), **options})
    else:
        click.echo()
