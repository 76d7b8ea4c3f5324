"""What must hold of a suite beyond its schema: names, options and tuning, against what is registered."""

import importlib.util
from collections.abc import Iterator
from typing import Any

from harness.records.spec import TUNABLE
from harness.suite import pretrained
from harness.suite.loaded import COMMON_TYPES, LoadedSuite, SuiteTask
from harness.suite.schema import ArchitectureEntry, Range, Suite
from harness.suite.yaml_source import Path_
from zoo import architectures
from zoo.options import mismatch
from zoo.registry import nearest, options_of

MOST_WIDTH = 2**20


def check_architectures(loaded: LoadedSuite) -> None:
    """Check that architectures and options of models are known; a UserError names the line of one that is not."""
    shared = dict(COMMON_TYPES)
    for index, entry in enumerate(loaded.suite.architectures):
        path: Path_ = ("architectures", index)
        if entry.pretrained:
            _check_pretrained(entry, loaded, (*path, entry.name))
            continue
        try:
            options = architectures.get(entry.name).options
        except KeyError as error:
            raise loaded.error(error.args[0], path) from None
        known: dict[str, Any] = {option.name: option.annotation for option in options}
        shared = known | shared
        _check_options(entry.options, known | COMMON_TYPES, entry.name, loaded, (*path, entry.name))
    _check_options(loaded.suite.model, shared, "model", loaded, ("model",))
    for name, track in loaded.suite.tracks.items():
        _check_options(track.model, shared, "model", loaded, ("tracks", name, "model"))
    for index, task in enumerate(loaded.suite.tasks):
        _check_options(task.model, shared, "model", loaded, ("tasks", index, "model"))


def check(loaded: LoadedSuite) -> None:
    """Check how a suite tunes, who plays what, and every architecture on every task; a UserError names the line."""
    for message, path in _wrong_tuning(loaded.suite):
        raise loaded.error(message, ("tuning", *path))
    for name, path in _given(loaded.suite):
        if loaded.suite.tuning and name in loaded.suite.tuning.space:
            raise loaded.error(f"{name} is also tuned; leave it out here, or take it out of tuning", path)
    _check_labels(loaded)
    known = set[str]()
    for task in loaded.tasks:
        for entry in loaded.plays(task):
            for track in () if entry.pretrained else loaded.suite.tracks_of(task.entry):
                _check_recipe(loaded, entry, task, track, known)


def check_count(loaded: LoadedSuite) -> None:
    """Check that a suite has no more runs than it says it may; they are counted, not made."""
    suite, most = loaded.suite, loaded.suite.limits.runs
    rows = [entry.label for entry in suite.architectures]
    cells = sum(len(suite.tracks_of(task)) * sum(map(task.plays, rows)) for task in suite.tasks)
    count = cells * (len(suite.all_seeds) + (suite.tuning.effort if suite.tuning else 0))
    if count > most:
        said = f"this suite makes {count:,} runs and trials, more than {most:,}"
        raise loaded.error(f"{said}; if you mean that: --set limits.runs={count}", ("limits", "runs"))


def _check_options(
    options: dict[str, Any], known: dict[str, Any], owner: str, loaded: LoadedSuite, path: Path_
) -> None:
    """Check that every option is known and of the right type."""
    for name, value in options.items():
        if name not in known:
            raise loaded.error(f"{owner} has no option {name!r}{nearest(name, known)}", (*path, name))
        problem = mismatch(value, known[name])
        if problem:
            raise loaded.error(f"{name} {problem}", (*path, name))


def _check_pretrained(entry: ArchitectureEntry, loaded: LoadedSuite, path: Path_) -> None:
    """Check that a row of published weights names one kind of checkpoint, and options that this kind has."""
    from zoo.published import KINDS

    try:
        kind, _, rest = pretrained.kind_and_where(entry.options)
    except ValueError as error:
        raise loaded.error(str(error), path) from None
    options = options_of(KINDS.resolve(kind), skip=1)
    _check_options(rest, {option.name: option.annotation for option in options}, kind, loaded, path)


def _check_recipe(loaded: LoadedSuite, entry: ArchitectureEntry, task: SuiteTask, track: str, known: set[str]) -> None:
    """Check that an architecture takes the options that it has on a task; what was found to be taken is `known`."""
    options = loaded.options(entry, task, track)
    if (asked := f"{entry.name} {options}") in known:
        return
    if not 1 <= options.pop("width", 1) <= MOST_WIDTH:
        where = loaded.locate_error(entry.label, task.label, "width", track)
        raise loaded.error(f"width must be at least 1 and at most {MOST_WIDTH:,}", where)
    try:
        architectures.recipe(entry.name, **options)
    except Exception as error:  # a plug-in may raise anything
        own = isinstance(error, (TypeError, ValueError))
        message = str(error) if own else f"{entry.name}: {type(error).__name__}: {error}"
        raise loaded.error(message, loaded.locate_error(entry.label, task.label, message, track)) from None
    known.add(asked)


def _check_labels(loaded: LoadedSuite) -> None:
    """Check that labels name rows and tasks of the suite, that every row plays a task and every task is in a track."""
    suite = loaded.suite
    rows, tasks = [entry.label for entry in suite.architectures], [task.label for task in suite.tasks]
    named: list[tuple[str, Path_]] = [(suite.reference, ("reference",))] if suite.reference is not None else []
    for index, entry in enumerate(suite.tasks):
        named += [(label, ("tasks", index, "only", at)) for at, label in enumerate(entry.only or [])]
    for label, path in named:
        if label not in rows:
            raise loaded.error(f"{label!r} is no architecture of this suite{nearest(label, rows)}", path)
    for index, label in enumerate(rows):
        if not any(entry.plays(label) for entry in suite.tasks):
            raise loaded.error(f"{label!r} plays no task; name it under `only`", ("architectures", index))
    wanted: list[tuple[str, Path_]] = [(label, ("targets", label)) for label in suite.targets]
    for name, track in suite.tracks.items():
        wanted += [(label, ("tracks", name, "tasks", at)) for at, label in enumerate(track.tasks or [])]
    for label, path in wanted:
        if label not in tasks:
            raise loaded.error(f"{label!r} is no task of this suite{nearest(label, tasks)}", path)
    for index, entry in enumerate(suite.tasks):
        if not suite.tracks_of(entry):
            raise loaded.error(f"{entry.label!r} is in no track; name it under `tasks` of one", ("tasks", index))


def _wrong_tuning(suite: Suite) -> Iterator[tuple[str, Path_]]:
    """What is wrong with how a suite tunes, and the key below `tuning` at which it is."""
    tuning = suite.tuning
    if tuning is None:
        return
    space, any_range = tuning.space, next((n for n, v in tuning.space.items() if isinstance(v, Range)), None)
    if not space:
        yield f"nothing to tune; give a list or a range of at least one of {', '.join(TUNABLE)}", ()
    for name, values in space.items():
        seen = set[float]()
        for index, value in enumerate(values if isinstance(values, list) else []):
            if value in seen:
                yield f"{value:g} stands twice", (name, index)
            seen.add(value)
    if tuning.sampler is None:
        samplers = "a sampler: tpe, random or qmc"
        if any_range:
            yield f"a range needs {samplers}; or give a list of values", (any_range,)
        if tuning.trials is not None:
            yield f"a grid tries every combination once; leave trials out, or name {samplers}", ("trials",)
    else:
        if tuning.trials is None:
            yield "a sampler must be told how many trials to make, such as trials: 12", ("sampler",)
        if not any_range:
            yield "a sampler needs at least one range; for lists alone leave sampler and trials out", ("sampler",)
        if importlib.util.find_spec("optuna") is None:
            yield f"{tuning.sampler} needs Optuna: pip install 'zoobench[tuning]'", ("sampler",)
    dropout = tuning.dropout.high if isinstance(tuning.dropout, Range) else max(tuning.dropout or [0.0])
    if dropout >= 1:
        yield f"dropout must lie in [0, 1), got {dropout:g}", ("dropout",)
    if tuning.seed in suite.all_seeds:
        yield f"{tuning.seed} is also one of the seeds; a trial's seed must be its own", ("seed",)


def _given(suite: Suite) -> Iterator[tuple[str, Path_]]:
    """Every model option that a suite sets by hand, and where."""
    places: list[tuple[Path_, dict[str, Any]]] = [(("model",), suite.model)]
    places += [(("tasks", i, "model"), task.model) for i, task in enumerate(suite.tasks)]
    places += [(("architectures", i, entry.name), entry.options) for i, entry in enumerate(suite.architectures)]
    for path, options in places:
        yield from ((name, (*path, name)) for name in options)
