"""`zoobench plan`."""

import re
from pathlib import Path

import click

from harness.commands.common import console, json_option, output, print_json, root_option, suite_options, trust_option
from harness.errors import UserError


@click.command()
@click.argument("suite")
@suite_options
@trust_option
@click.option("--on", "places", multiple=True, metavar="KIND[:N]", help="Say what it costs on N devices, as h100:8.")
@click.option("--price", "prices", multiple=True, metavar="[KIND=]PRICE", help="With --on: of a device hour.")
@click.option("--failures", metavar="RATE", help="With --on: of a device in an hour [default: 0].")
@root_option
@json_option
def command(
    suite: str,
    overrides: tuple[str, ...],
    trust: bool,
    places: tuple[str, ...],
    prices: tuple[str, ...],
    failures: str | None,
    root: Path | None,
    as_json: bool,
) -> None:
    """Show the size and the cost of every run of SUITE.

    Sizes are solved, FLOPs counted, and a few training steps timed on this machine; nothing is trained. With --on, also
    device hours, wall time and price on other devices, whose speed is looked up in records or extrapolated. Where seeds
    are added, the least and the most are shown.
    """
    from harness.execute import cost, estimate
    from harness.execute.runner import load_data
    from harness.plan.expand import expand
    from harness.suite.load import load

    wanted = [_devices(place) for place in places]
    for kind, _ in wanted:
        cost.check_kind(kind)
    rate, by_kind = _number("--failures", failures or "0"), _prices(prices, {kind for kind, _ in wanted})
    if failures and not wanted:
        raise UserError("say of which devices, by --on KIND", file="--failures")
    loaded = load(suite, overrides, trust=trust)
    load_data(loaded, expand(loaded))
    cells = estimate.plan(loaded, kernels=any(kind != "cpu" for kind, _ in wanted))
    spans = [loaded, loaded.with_all_seeds] if loaded.suite.seed_rule else [loaded]
    costs = [
        cost.cost(cells, one, kind, count, price=by_kind.get(kind), failures=rate, root=root)
        for kind, count in wanted
        for one in spans
    ]
    if as_json and wanted:
        print_json({"cells": cells, "costs": costs})
        return
    walls = [cost.here(cells, one) for one in spans]
    output(cells, lambda cells, screen: estimate.show(cells, loaded, (walls[0], walls[-1]), screen), as_json=as_json)
    for line in cost.lines(costs) if wanted else ():
        console().print(line, highlight=False, markup=False)


def _devices(text: str) -> tuple[str, int]:
    """KIND[:N]."""
    found = re.fullmatch(r"([^:]*)(?::(0*[1-9]\d{0,6}))?", text)
    if found is None:
        raise UserError(f"expected KIND or KIND:N, as h100:8, not {text!r}", file="--on")
    return found[1].lower(), int(found[2] or 1)


def _prices(texts: tuple[str, ...], kinds: set[str]) -> dict[str, float]:
    """The price of a device hour by kind."""
    found = {}
    for text in texts:
        kind, _, price = text.rpartition("=")
        kind = kind or (next(iter(kinds)) if len(kinds) == 1 else "")
        if kind not in kinds:
            raise UserError(f"say of which device of --on, as {next(iter(kinds), 'h100')}=2.5", file="--price")
        found[kind] = _number("--price", price)
    return found


def _number(option: str, text: str) -> float:
    from harness.units import parse_number

    try:
        return parse_number(text)
    except ValueError as error:
        raise UserError(str(error), file=option) from None
