"""`zoobench plan`."""

import click

from harness.commands.common import json_option, output, suite_options, trust_option


@click.command()
@click.argument("suite")
@suite_options
@trust_option
@json_option
def command(suite: str, overrides: tuple[str, ...], trust: bool, as_json: bool) -> None:
    """Show the size and the cost of every run of SUITE.

    Sizes are solved, FLOPs counted, and a few training steps timed on this machine; nothing is trained.
    """
    from harness.execute import estimate
    from harness.execute.runner import load_data
    from harness.plan.expand import expand
    from harness.suite.load import load

    loaded = load(suite, overrides, trust=trust)
    load_data(loaded, expand(loaded))
    output(estimate.plan(loaded), lambda cells, console: estimate.show(cells, loaded, console), as_json=as_json)
