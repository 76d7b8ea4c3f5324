"""`zoobench validate`."""

from dataclasses import asdict

import click

from harness.commands.common import json_option, output, suite_options, trust_option


@click.command()
@click.argument("suite")
@suite_options
@trust_option
@json_option
def command(suite: str, overrides: tuple[str, ...], trust: bool, as_json: bool) -> None:
    """Check SUITE without running anything."""
    from harness.plan.expand import expand
    from harness.plan.sizes import count_runs, solve
    from harness.suite.load import load

    loaded = load(suite, overrides, trust=trust)
    specs = expand(loaded)
    counts = count_runs(specs, solve(specs, loaded), loaded)
    found = {"suite": loaded.name, "valid": True, **asdict(counts)}
    output(found, lambda *_: click.echo(f"{loaded.name} is valid: {counts}"), as_json=as_json)
