"""Which runs a suite has, given the records of its trials and rounds; and what sets another run apart from them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness.plan.expand import expand
from harness.plan.rounds import add_seeds
from harness.plan.trials import choose, lookup_in, trials
from harness.records.record import Record
from harness.records.spec import RunSpec
from harness.suite.loaded import LoadedSuite
from harness.suite.schema import Range


def wanted(loaded: LoadedSuite, known: Mapping[str, Record]) -> dict[str, RunSpec]:
    """By id, the suite's trials, and its final runs as these records decide them, added seeds among them."""
    tried = [s for s in trials(loaded, lookup_in(known.get, lambda: [*known.values()])) if _in_space(s, loaded)]
    records = [known[spec.run_id] for spec in tried if spec.run_id in known]
    decided, _ = add_seeds(loaded, choose(expand(loaded), records), records, lambda spec: known.get(spec.run_id))
    return {spec.run_id: spec for spec in [*tried, *decided]}


def _in_space(spec: RunSpec, loaded: LoadedSuite) -> bool:
    """Whether a trial's point, which another version of Optuna may have sampled, lies where the suite tunes."""
    assert loaded.suite.tuning is not None
    return all(
        values.low <= spec.point[name] <= values.high if isinstance(values, Range) else spec.point[name] in values
        for name, values in loaded.suite.tuning.space.items()
    )


def foreign(spec: RunSpec, wanted: Iterable[RunSpec]) -> str:
    """Why a run is none of the suite's: what it has that the suite's run of its row, kind and seed has otherwise."""
    for own in wanted:
        if (own.cell, own.kind, own.seed) == (spec.cell, spec.kind, spec.seed) and own.tuning is None:
            theirs, mine = (spec.to_dict() | {"data": spec.fingerprint}), (own.to_dict() | {"data": own.fingerprint})
            return f"no run of this suite; differs in {', '.join(_differing(theirs, mine))}"
    return "no run of this suite"


def _differing(one: dict[str, Any], two: dict[str, Any]) -> Iterator[str]:
    for name in sorted({*one, *two}):
        mine, other = one.get(name), two.get(name)
        if isinstance(mine, dict) and isinstance(other, dict):
            yield from (f"{name}.{inner}" for inner in _differing(mine, other))
        elif json.dumps(mine) != json.dumps(other):
            yield name
