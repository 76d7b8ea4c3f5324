"""`zoobench validate`."""

from __future__ import annotations

import click

from harness.commands.common import json_option, print_json, suite_options


@click.command()
@click.argument("suite")
@suite_options
@json_option
def command(suite: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check SUITE without running anything."""
    from harness.plan import trials
    from harness.plan.expand import expand
    from harness.plan.sizes import solve
    from harness.suite.load import load

    loaded = load(suite, overrides)
    specs, tries = expand(loaded), trials.count(loaded)
    solve(specs, loaded)
    if as_json:
        print_json({"suite": loaded.name, "valid": True, "runs": len(specs), "trials": tries})
    else:
        click.echo(f"{loaded.name} is valid: {len(specs)} runs and {tries} trials")
