"""From a suite to its final runs."""

import importlib.util
from hashlib import blake2b
from pathlib import Path

from harness.records.spec import RunSpec
from harness.suite.loaded import LoadedSuite, SuiteTask
from harness.suite.schema import ArchitectureEntry


def expand(loaded: LoadedSuite) -> list[RunSpec]:
    """Every final run of a suite: task by task, track by track, seed by seed, with the suite's own hyperparameters.

    Rows of published weights stand once, under the first seed.
    """
    plugins = tuple((name, plugin_digest(where)) for name, where in loaded.plugins)
    first = loaded.suite.seeds[0]
    return [
        _spec(loaded, task, track, entry, seed).replace(plugins=plugins)
        for task in loaded.tasks
        for track in loaded.tracks
        for seed in loaded.suite.seeds
        for entry in loaded.plays(task)
        if not entry.pretrained or seed == first
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
    found = None if where.endswith(".py") else importlib.util.find_spec(where)
    path = where if found is None else found.origin
    return blake2b(Path(path or where).read_bytes(), digest_size=8).hexdigest()
