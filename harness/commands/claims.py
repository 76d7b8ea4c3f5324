"""`zoobench claims`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.commands.common import console, json_option, print_json, written_root_option
from harness.errors import UserError


@click.command()
@click.argument("names", nargs=-1, metavar="[ID...]")
@click.option(
    "--scale",
    type=click.Choice(["smoke", "small", "paper"]),
    default="small",
    show_default=True,
    help="How large: minutes, hours on a laptop, or GPUs.",
)
@click.option("--run", "make", is_flag=True, help="Measure first what is lacking.")
@click.option("--workers", type=click.IntRange(1), help="With --run: runs at a time.")
@click.option("--threads", type=click.IntRange(1), help="With --run: threads of each.")
@written_root_option
@json_option
def command(
    names: tuple[str, ...],
    scale: Any,
    make: bool,
    workers: int | None,
    threads: int | None,
    root: Path | None,
    as_json: bool,
) -> None:
    """Say what was measured of each claim, and the verdict.

    What decides was written down before it was measured. Without ID, all claims in one table.
    """
    from harness.board.tables import print_section
    from harness.claims.plan import claims
    from harness.claims.report import details, judged, overview
    from zoo.registry import nearest

    for name in names:
        if name not in claims():
            raise UserError(f"no claim is called {name!r}{nearest(name, claims())}")
    if make:
        from harness.claims.run import make as measure

        for name in names or claims():
            measure(name, scale, console(stderr=True), root, workers=workers, threads=threads)
    found = judged(names, scale, root)
    if as_json:
        print_json([as_dict(one) for one in found])
        return
    screen = console()
    for section in [details(one, scale) for one in found] if names else [overview(found)]:
        print_section(section, screen)


def as_dict(one: Any) -> dict[str, Any]:
    """A claim as JSON has it."""
    from harness.claims.report import wanted

    effects = [
        {
            "says": effect.contrast.says,
            "decided_by": wanted(effect.contrast),
            "finding": effect.finding,
            "mean": effect.mean,
            "low": effect.low,
            "high": effect.high,
            "seeds": effect.seeds,
            "needs": effect.needs,
        }
        for effect in one.effects
    ]
    return {
        "name": one.name,
        "claim": one.claim.says,
        "verdict": one.verdict,
        "contrasts": effects,
        "seconds": one.measured.seconds,
        "made": one.measured.made,
        "left_out": one.measured.left_out,
    }
