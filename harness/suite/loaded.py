"""A suite that was loaded: as written, with its tasks as every run of them is to be, and where each key stands."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.records.meters import StopRule
from harness.records.spec import MatchRule, RunSpec, TrainSettings
from harness.suite.schema import ArchitectureEntry, Suite, TaskEntry, Track
from harness.suite.yaml_source import Path_, Source
from tasks.base import Task
from zoo import architectures
from zoo.registry import nearest

COMMON_TYPES: dict[str, Any] = {**architectures.COMMON, "width": int}
"""Options every architecture takes, `width` for suites that match nothing."""


@dataclass(frozen=True)
class SuiteTask:
    """One task of a suite, built, with everything that the suite and its difficulty decide about it."""

    index: int
    entry: TaskEntry
    """As written."""
    options: dict[str, Any]
    task: Task
    stop: StopRule
    match: MatchRule | None
    train: TrainSettings
    model: dict[str, Any]
    """Options for every architecture that has them."""

    @property
    def label(self) -> str:
        return self.entry.label


@dataclass(frozen=True)
class LoadedSuite:
    """A checked suite, and where it came from."""

    suite: Suite
    """As written."""
    tasks: list[SuiteTask]
    source: Source
    folder: Path
    """Relative plug-in paths start here."""
    trusted: bool = False
    """Whether code that it names may be imported without asking."""

    @property
    def name(self) -> str:
        return self.suite.suite

    @property
    def with_all_seeds(self) -> "LoadedSuite":
        """The suite as if every row got the most seeds that it may."""
        return replace(self, suite=self.suite.model_copy(update={"seeds": self.suite.all_seeds}))

    @property
    def plugins(self) -> list[tuple[str, str]]:
        """Plug-ins as (name in the suite, what to import)."""
        return [(p, str((self.folder / p).resolve()) if p.endswith(".py") else p) for p in self.suite.plugins]

    def plugins_of(self, spec: RunSpec) -> tuple[str, ...]:
        """What to import for a run."""
        own = {name for name, _ in spec.plugins}
        return tuple(where for name, where in self.plugins if name in own)

    def tables(self, tasks: Collection[str] = (), tracks: Collection[str] = ()) -> list[tuple[str, str]]:
        """The tables that the suite fills, as (task, track): those of the named ones alone, if any are named.

        Raises:
            UserError: the suite has no such task or track.
        """
        every = [(task.label, track) for task in self.suite.tasks for track in self.suite.tracks_of(task)]
        for option, named, known in (
            ("--task", tasks, [task for task, _ in every]),
            ("--track", tracks, [track for _, track in every if track]),
        ):
            for name in named:
                if name not in known:
                    raise UserError(f"{self.name} has none that is called {name!r}{nearest(name, known)}", key=option)
        return [(task, track) for task, track in every if task in (tasks or [task]) and track in (tracks or [track])]

    def described(self, runs: Iterable[RunSpec]) -> dict[str, Any]:
        """What a board needs to know beside the records, the suite as written, and the ids of its runs."""
        suite = self.suite
        rule = suite.seed_rule
        return {
            "suite": suite.suite,
            "about": suite.about,
            "order": [list(table) for table in self.tables()],
            "reference": suite.reference or "",
            "targets": suite.targets,
            "only": {task.label: task.only for task in suite.tasks if task.only},
            "text": self.source.data,
            "runs": sorted(spec.run_id for spec in runs),
        } | ({"seeds": asdict(rule)} if rule else {})

    def error(self, message: str, path: Path_ = ()) -> UserError:
        """An error at the place of a key in the YAML."""
        return self.source.error(message, path)

    def track(self, name: str) -> Track:
        """A track by name; the one without a name is the suite's own budget."""
        return self.suite.tracks[name] if name else Track()

    def task(self, label: str) -> SuiteTask:
        """A task by its label."""
        return next(task for task in self.tasks if task.label == label)

    def plays(self, task: SuiteTask) -> list[ArchitectureEntry]:
        """The architectures that play a task."""
        return [entry for entry in self.suite.architectures if task.entry.plays(entry.label)]

    def options(self, entry: ArchitectureEntry, task: SuiteTask, track: str = "") -> dict[str, Any]:
        """The options of one architecture on one task: its own over the track's, the task's, those of every model."""
        if entry.pretrained:
            return entry.options
        known = {*COMMON_TYPES, *(option.name for option in architectures.get(entry.name).options)}
        common = {**task.model, **self.track(track).model}
        return {**{key: value for key, value in common.items() if key in known}, **entry.options}

    def locate_error(self, architecture: str, task: str, message: str, track: str = "") -> Path_:
        """The path of the option that a message about one architecture on one task names; else of the architecture."""
        labels = [entry.label for entry in self.suite.architectures]
        index, at = labels.index(architecture), self.task(task).index
        entry = self.suite.architectures[index]
        places: list[tuple[Path_, dict[str, Any]]] = [
            (("architectures", index, entry.name), entry.options),
            (("tracks", track, "model"), self.track(track).model),
            (("tasks", at, "model"), self.suite.tasks[at].model),
            (("model",), self.suite.model),
        ]
        found = [(score, (*path, *inner)) for path, options in places for inner, score in _named(options, message)]
        return max(found, key=lambda pair: pair[0])[1] if found else ("architectures", index)


def _named(value: Any, message: str, above: int = 0) -> Iterator[tuple[Path_, int]]:
    """The paths in an option's value that a message names, each with how well; a number alone names nothing."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        if isinstance(value, list) and not isinstance(inner, (str, dict, list)):
            continue  # a number in a list is not looked for
        own = above + (2 * _says(message, key) if isinstance(key, str) else 0)
        if isinstance(inner, (dict, list)):
            yield from (((key, *path), score) for path, score in _named(inner, message, own))
        elif own or isinstance(inner, str):
            own += _says(message, inner)
        if own > above:
            yield (key,), own


def _says(message: str, word: Any) -> bool:
    """Whether a message has this name or value as a word of its own."""
    return re.search(rf"(?<!\w)(?<!\d[.,]){re.escape(str(word))}(?!\w|[.,]\d)", message) is not None
