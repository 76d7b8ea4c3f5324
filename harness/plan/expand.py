"""From a suite to its final runs."""

import importlib.util
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from harness.records.spec import RunSpec
from harness.suite.loaded import LoadedSuite, SuiteTask
from harness.suite.schema import ArchitectureEntry
from tasks import registry
from zoo import architectures


def expand(loaded: LoadedSuite) -> list[RunSpec]:
    """Every final run of a suite: task by task, track by track, seed by seed, with the suite's own hyperparameters.

    Where seeds are added these are the runs of the first round; `harness.plan.rounds` has those that follow.

    Rows of published weights stand once, under the first seed. Of the suite's plug-ins a run names those that register
    something which it names, and those that register nothing; so a new plug-in does not change the other rows.
    """
    plugins = [(name, plugin_digest(where), _registered(where)) for name, where in loaded.plugins]

    def named(spec: RunSpec) -> RunSpec:
        if not plugins:
            return spec
        words = {*_words([spec.architecture, spec.options, spec.task, spec.task_options])}
        own = tuple((name, digest) for name, digest, names in plugins if not names or names & words)
        return spec.replace(plugins=own)

    seeds = loaded.suite.first_seeds
    return [
        named(_spec(loaded, task, track, entry, seed))
        for task in loaded.tasks
        for track in loaded.suite.tracks_of(task.entry)
        for seed in seeds
        for entry in loaded.plays(task)
        if not entry.pretrained or seed == seeds[0]
    ]


def _spec(loaded: LoadedSuite, task: SuiteTask, name: str, entry: ArchitectureEntry, seed: int) -> RunSpec:
    track, options = loaded.track(name), loaded.options(entry, task, name)
    match = task.match
    if "match" in track.model_fields_set:
        match = track.match.rule() if track.match else None
    return RunSpec(
        architecture=entry.name,
        architecture_label=entry.label,
        options=options,
        task=task.entry.name,
        task_label=task.label,
        task_options=task.options,
        role=task.task.role,
        seed=seed,
        kind="final",
        match=None if entry.pretrained or "width" in options else match,
        stop=None if entry.pretrained else track.stop.rule() if track.stop else task.stop,
        train=None if entry.pretrained else task.train,
        evaluate=loaded.suite.evaluate.settings(),
        track=name,
        fingerprint=task.task.fingerprint,
    )


def plugin_digest(where: str) -> str:
    """BLAKE2 of a plug-in's source."""
    return blake2b(_source(where).read_bytes(), digest_size=8).hexdigest()


def _registered(where: str) -> set[str]:
    """The architectures and tasks that a plug-in's own file registers."""
    file = _source(where)
    return architectures.registered_by(file) | registry.registered_by(file)


def _source(where: str) -> Path:
    found = None if where.endswith(".py") else importlib.util.find_spec(where)
    return Path(where if found is None or found.origin is None else found.origin)


def _words(value: Any) -> Iterator[str]:
    """Every name in nested options."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _words(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _words([key, inner])
