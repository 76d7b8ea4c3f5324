"""`zoobench bench`."""

import sys
from pathlib import Path
from typing import Any

import click

from harness.commands.common import assignments_option, console, json_option, output, plugin_option


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="ARCH...")
@click.option(
    "--lengths",
    default="256,2048",
    show_default=True,
    metavar="T[xB],...",
    help="Lengths; with xB the batch, else 4096 // length.",
)
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@click.option("--role", type=click.Choice(["lm", "classify"]), help="[default: lm where it can, or its peers' role]")
@click.option("--width", type=click.IntRange(1), default=256, show_default=True)
@click.option("--depth", type=click.IntRange(1), help="Layers [default: the architecture's own].")
@assignments_option("options", "An option of every ARCH.")
@click.option("--contexts", default="", metavar="T,...", help="Context lengths to decode behind, beside each length.")
@click.option("--reference", default="pre_ln", show_default=True, help="Measured in turn with each row, or `none`.")
@click.option("--peers", is_flag=True, help="Measure other implementations in turn as well (extra `oracles`).")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Rounds; medians are reported.")
@click.option(
    "--seconds", type=click.FloatRange(0), default=1.0, show_default=True, help="Seconds of training in a round."
)
@click.option("--threads", type=click.IntRange(1), help="Threads of each [default: one for each core].")
@plugin_option
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Write bench.json, bench.md, time.png.")
@json_option
def command(names: tuple[str, ...], out: Path | None, as_json: bool, **settings: Any) -> None:
    """Measure the speed and memory of each ARCH.

    Each is timed in turn with a reference and, with --peers, with other people's implementations.
    """
    from harness import bench
    from harness.bench import report

    screen = console(stderr=True)

    def on_row(rows: list[dict[str, Any]]) -> None:
        if out is not None:
            report.save(rows, out)
        screen.print(report.line(rows[-1]), highlight=False, markup=False)

    parsed = bench.parse_settings(**settings)
    with screen.status("starting") as status:
        rows = bench.bench(names, parsed, on_progress=status.update, on_row=on_row)
    output(rows, report.show, as_json=as_json)
    if out is not None and not as_json:
        click.echo(f"written to {out}")
    sys.exit(0 if all(row["status"] in ("ok", "unsupported") for row in rows) else 1)
