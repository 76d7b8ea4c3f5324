"""The trials of a suite: which points are tried, and the hyperparameters they decide on."""

import functools
import itertools
import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from typing import Any, TypeAlias

from harness.plan.expand import expand
from harness.records.meters import StopRule
from harness.records.record import Record
from harness.records.spec import Cell, RunSpec, Search
from harness.suite.loaded import LoadedSuite
from harness.suite.schema import Range, Tuning

Point: TypeAlias = "dict[str, float]"
Lookup: TypeAlias = "Callable[[RunSpec], Record | None]"
"""The record of a trial, or None while it has none."""
STARTUP = 5
"""Trials of `tpe` at random points, the same for every architecture, before it starts to learn from results."""
FIGURES = 4
"""Significant figures of a sampled value: no machine's last bits decide what is tried."""


def count(loaded: LoadedSuite) -> int:
    """How many trials the suite makes in all."""
    return 0 if loaded.suite.tuning is None else loaded.suite.tuning.effort * len(_cells(loaded))


def trials(loaded: LoadedSuite, lookup: Lookup = lambda spec: None) -> list[RunSpec]:
    """Every trial that is decided, cell by cell: the same number, length and space for each architecture on each task.

    Grid, `random` and `qmc` are decided from the start, by the same points for everyone. `tpe` decides on a trial from
    the records of those before it in its cell: the last one listed is the next to run, until the cell has them all.
    """
    tuning = loaded.suite.tuning
    if tuning is None:
        return []
    known = [] if tuning.sampler == "tpe" else list(_points(tuning))
    found: list[RunSpec] = []
    for cell in _cells(loaded):
        base = cell.replace(
            kind="trial",
            seed=tuning.seed,
            stop=cell.stop and StopRule(cell.stop.meter, cell.stop.limit * tuning.budget),
            evaluate=replace(cell.evaluate, split=tuning.select),
        )
        if tuning.sampler == "tpe":
            found += _tpe_trials(tuning, base, lookup)
        else:
            found += [_trial(tuning, base, number, point) for number, point in enumerate(known)]
    return found


def choose(specs: list[RunSpec], records: list[Record]) -> list[RunSpec]:
    """The final runs with the hyperparameters their own trials chose. `records` are in the order of `trials`.

    The rule, fixed beforehand: best value of the task's metric on the tuning split; a trial that did not end well loses
    to any that did; ties go to the smaller learning rate, then to the earlier trial. A cell whose trials all failed
    takes the first of its points.
    """
    cells: dict[Cell, list[tuple[float, float, int, RunSpec]]] = {}
    for record in records:
        trial = record.spec
        if trial.kind == "trial":
            own = cells.setdefault(trial.cell, [])
            own.append((objective(record), trial.point["lr"], len(own), trial))
    best = {cell: (own[0] if math.isinf(min(own)[0]) else min(own))[-1].point for cell, own in cells.items()}
    return [spec.at(best[spec.cell]) if spec.cell in best else spec for spec in specs]


def objective(record: Record) -> float:
    """What trials are judged by, smaller is better: the metric on the tuning split, infinite for one that failed."""
    value = record.metrics.score(record.spec.evaluate.split or "valid")
    if record.status != "ok" or value is None or not math.isfinite(value):
        return math.inf
    return -value if record.metrics.higher_is_better else value


def search_key(spec: RunSpec) -> str:
    """A key of a sampled trial without its point: equal for the same number of the same search."""
    assert spec.tuning is not None
    written = spec.to_dict()
    for place in ("train", "options"):
        written[place] = {name: value for name, value in written[place].items() if name not in spec.tuning.space}
    return json.dumps(written, sort_keys=True)


def under_another_version(records: list[Record]) -> dict[str, Record]:
    """By `search_key`, the sampled trials made with another version of Optuna than the one here, or an unknown one."""
    here, found = version("optuna"), dict[str, Record]()
    for record in records:
        if record.spec.tuning and record.provenance.packages.get("optuna") != here:
            found.setdefault(search_key(record.spec), record)
    return found


def lookup_in(read: Callable[[str], Record | None], records: Callable[[], list[Record]]) -> Lookup:
    """A function that finds the record of a trial: by its id through `read`, or among all `records`.

    Another version of Optuna may sample other points: a trial that one sampled stands for the same number here, too.
    """
    elsewhere = functools.cache(lambda: under_another_version(records()))

    def lookup(spec: RunSpec) -> Record | None:
        found = read(spec.run_id)
        if found is None and spec.tuning and spec.tuning.sampler == "tpe":
            return elsewhere().get(search_key(spec))
        return found

    return lookup


def _cells(loaded: LoadedSuite) -> list[RunSpec]:
    """One final run of each cell that is trained."""
    return list({spec.cell: spec for spec in reversed(expand(loaded)) if not spec.pretrained}.values())[::-1]


def _trial(tuning: Tuning, base: RunSpec, number: int, point: Point) -> RunSpec:
    if tuning.sampler is None:
        return base.at(point)
    space = {name: v.model_dump() if isinstance(v, Range) else v for name, v in tuning.space.items()}
    return base.at(point).replace(tuning=Search(tuning.sampler, space, number))


def _points(tuning: Tuning) -> Iterator[Point]:
    """The points of a grid, of `random` or of `qmc` (Sobol's sequence, scrambled: Owen 1998, J. Complexity 14)."""
    if tuning.sampler is None:
        lists = [values for values in tuning.space.values() if isinstance(values, list)]
        for values in itertools.product(*lists):
            yield dict(zip(tuning.space, values, strict=True))
        return
    study, distributions = _study(tuning, tuning.seed), _distributions(tuning)
    if tuning.sampler == "qmc":
        study.tell(study.ask(distributions), 0.0)  # Optuna draws a study's first point at random
    for _ in range(tuning.effort):
        yield _rounded(tuning, study.ask(distributions).params)


def _tpe_trials(tuning: Tuning, base: RunSpec, lookup: Lookup) -> Iterator[RunSpec]:
    """The trials of one cell by TPE (Bergstra et al. 2011, NeurIPS), up to the first that has no record yet.

    Each has a sampler with its own seed, which sees the trials before it (those at random see none), so that the same
    records lead to the same trials wherever a suite was interrupted.
    """
    done: list[Record] = []
    for batch in [range(min(STARTUP, tuning.effort)), *(range(i, i + 1) for i in range(STARTUP, tuning.effort))]:
        specs = [_trial(tuning, base, number, _tpe_point(tuning, number, done)) for number in batch]
        records = [lookup(spec) for spec in specs]
        for spec, record in zip(specs, records, strict=True):
            yield spec if record is None else record.spec
        done += [record for record in records if record is not None]
        if len(done) < batch.stop:
            return


def _tpe_point(tuning: Tuning, number: int, done: list[Record]) -> Point:
    """The point that TPE tries after the trials that are `done`; one that failed counts as the worst."""
    from optuna.trial import create_trial

    study, distributions = _study(tuning, tuning.seed + number), _distributions(tuning)
    for record in done:
        params = {name: record.spec.point[name] for name in tuning.space}
        study.add_trial(create_trial(params=params, distributions=distributions, value=objective(record)))
    return _rounded(tuning, study.ask(distributions).params)


def _study(tuning: Tuning, seed: int) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if tuning.sampler == "tpe":
            sampler: Any = optuna.samplers.TPESampler(n_startup_trials=STARTUP, constant_liar=False, seed=seed)
        elif tuning.sampler == "qmc":
            sampler = optuna.samplers.QMCSampler(scramble=True, seed=seed, warn_independent_sampling=False)
        else:
            sampler = optuna.samplers.RandomSampler(seed=seed)
        return optuna.create_study(sampler=sampler)


def _distributions(tuning: Tuning) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    return {
        name: FloatDistribution(v.low, v.high, log=v.log) if isinstance(v, Range) else CategoricalDistribution(v)
        for name, v in tuning.space.items()
    }


def _rounded(tuning: Tuning, params: Point) -> Point:
    """Values drawn from ranges to `FIGURES` figures, within their range."""
    point = {}
    for name, dimension in tuning.space.items():
        value = params[name]
        if isinstance(dimension, Range):
            value = min(max(float(f"{value:.{FIGURES}g}"), dimension.low), dimension.high)
        point[name] = value
    return point
