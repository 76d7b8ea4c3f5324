"""The YAML schema of a suite, and how one is found, read, merged, overridden and checked before anything runs."""

from __future__ import annotations

import dataclasses
import importlib.resources
import importlib.util
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

import tasks as task_registry
from harness import pretrained
from harness.eligible import GATES
from harness.errors import UserError
from harness.source import Loader, Path_, Source, merge, read
from harness.units import Count, Duration, Fraction, Number, Quantity
from tasks.base import Difficulty
from zoo import architectures
from zoo.options import mismatch
from zoo.registry import load_plugin, nearest, options_of
from zoo.types import Schedule


class Strict(BaseModel):
    """A mapping in which an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            fields = ", ".join(f"{name}: …" for name in cls.model_fields)
            raise PydanticCustomError("mapping", "expected a mapping such as {fields}", {"fields": f"{{{fields}}}"})
        for key in data:
            if key not in cls.model_fields:
                message = f"unknown key {key!r}{nearest(key, cls.model_fields)}"
                raise PydanticCustomError("unknown_key", "{message}", {"message": message, "key": key})
        return data


METERS = ("tokens", "steps", "flops", "seconds")
"""What a run uses up, by which it can be ended."""


class Match(Strict):
    """What is held equal over the architectures: exactly one of params, flops_per_token, state_bytes."""

    params: Count | None = None
    count: Literal["total", "non_embedding"] = "non_embedding"
    """Which parameters: all, or those of the backbone."""
    flops_per_token: Quantity | None = None
    """Counted on one real training step, forward and backward, over the tokens of its batch."""
    state_bytes: Count | None = None
    """Carried from one decoding step to the next after one sequence of the task's length."""
    tolerance: Fraction = 0.05
    solve: Annotated[list[Literal["width", "depth"]], Field(min_length=1)] = ["width", "depth"]
    """What is varied to get there; depth only where no width comes within the tolerance."""

    @model_validator(mode="after")
    def _one(self) -> Match:
        if sum(value is not None for value in (self.params, self.flops_per_token, self.state_bytes)) != 1:
            raise ValueError("give exactly one of params, flops_per_token, state_bytes")
        if self.params is None and "count" in self.model_fields_set:
            raise ValueError("count goes with params only")
        if "width" not in self.solve:
            raise ValueError("solve needs width: depth alone is too coarse to match anything")
        return self

    def terms(self) -> dict[str, Any]:
        """As a RunSpec holds it: what is matched, and whatever differs from the defaults."""
        left_out = {*(() if self.params else ("count",)), *(("solve",) if self.solve == ["width", "depth"] else ())}
        return self.model_dump(exclude_none=True, exclude=left_out)


class Stop(Strict):
    """When a run ends: at a limit on exactly one meter, or before it, when the score on `valid` reaches a target."""

    tokens: Count | None = None
    steps: Count | None = None
    flops: Quantity | None = None
    seconds: Duration | None = None
    target: Number | None = None
    """A value of the task's metric; rows are then ranked by what they used of the meter to reach it."""

    @model_validator(mode="after")
    def _one(self) -> Stop:
        if sum(getattr(self, name) is not None for name in METERS) != 1:
            raise ValueError(
                "give exactly one of tokens, steps, flops, seconds" + (" beside target" * bool(self.target))
            )
        return self

    def terms(self) -> dict[str, float]:
        """As a RunSpec holds it."""
        return self.model_dump(exclude_none=True)


class Budget(Strict):
    """What is held equal and when runs end; what is not given, a task's difficulty decides."""

    match: Match | None = None
    stop: Stop = Stop(tokens=1_000_000)

    @model_validator(mode="before")
    @classmethod
    def _none(cls, data: Any) -> Any:
        return _without_match(data)


class Track(Strict):
    """One way to hold architectures equal: a budget by which every task is played once more, and ranked apart."""

    about: str = ""
    match: Match | None = None
    stop: Stop | None = None
    model: dict[str, Any] = {}
    """Options for every architecture that has them, over the suite's and the task's: `width`, if nothing is matched."""

    @model_validator(mode="before")
    @classmethod
    def _none(cls, data: Any) -> Any:
        return _without_match(data)


def _without_match(data: Any) -> Any:
    """`match: none` is no match."""
    return {**data, "match": None} if isinstance(data, dict) and data.get("match") == "none" else data


class Train(Strict):
    """How every run of the suite is trained."""

    batch_tokens: Count = 1024
    optimizer: Literal["adamw"] = "adamw"
    lr: Number = 1e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)
    weight_decay: Number = 0.1
    schedule: Schedule = "cosine"
    warmup: Fraction = 0.05
    final_lr: Fraction = 0.1
    """Where the schedule ends, as a fraction of the peak."""
    clip: Number = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Evaluate(Strict):
    every: Fraction = 0.1
    """How often `valid` is scored, as a fraction of the budget."""
    valid: Count = 256
    """Examples of `valid` scored along the way and at the end."""
    test: Count | Literal["all"] = "all"
    """Examples of `test` scored once, at the end."""
    skip_gates: list[str] = []
    """Gates that are not asked, by name; a board says so."""

    @field_validator("skip_gates")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in GATES:
                raise ValueError(f"no gate is called {name!r}{nearest(name, GATES)}")
        return sorted({*names})


class Range(Strict):
    """From where to where a sampler draws a value: evenly, or with `log` evenly in the logarithm."""

    low: Number
    high: Number
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must lie below high ({self.high:g})")
        if self.log and self.low == 0:
            raise ValueError("a logarithmic range cannot start at 0; raise low, or leave out log")
        return self


class Share(Range):
    """A range of fractions: `{low: 0, high: 30%}`."""

    low: Fraction
    high: Fraction


def _form(value: Any) -> str | None:
    """Which of the two a value is meant to be, in brackets, which keep it out of the paths of errors."""
    return "[range]" if isinstance(value, (dict, Range)) else "[list]" if isinstance(value, list) else None


_FORM = Discriminator(
    _form,
    custom_error_type="values",
    custom_error_message="expected a list of values, or a range such as {low: 1e-4, high: 1e-2, log: true}",
)
_LISTED = Field(min_length=1)
Numbers = Annotated[Annotated[list[Number], _LISTED, Tag("[list]")] | Annotated[Range, Tag("[range]")], _FORM]
Shares = Annotated[Annotated[list[Fraction], _LISTED, Tag("[list]")] | Annotated[Share, Tag("[range]")], _FORM]
TUNABLE = {"lr": "train", "weight_decay": "train", "warmup": "train", "dropout": "options"}
"""What a suite may tune, in the order in which a grid runs through it, and the field of a RunSpec that holds it."""


class Tuning(Strict):
    """The same trials for every architecture and task, chosen on one split by the task's metric.

    Without `sampler` every combination of the lists is tried; with it, `trials` points of lists and ranges.
    """

    sampler: Literal["tpe", "random", "qmc"] | None = None
    trials: Count | None = None
    lr: Numbers | None = None
    weight_decay: Numbers | None = None
    warmup: Shares | None = None
    dropout: Shares | None = None
    select: Literal["valid", "tune"] = "valid"
    budget: Annotated[Fraction, Field(gt=0)] = 1.0
    """Length of a trial as a fraction of a run's."""
    seed: int = 1000
    """The seed of the trials and of the sampler, which no run of the board may share."""

    @property
    def space(self) -> dict[str, list[float] | Range]:
        """What is tuned, in the order of `TUNABLE`."""
        return {name: found for name in TUNABLE if (found := getattr(self, name)) is not None}

    @property
    def effort(self) -> int:
        """Trials of each architecture on each task."""
        if self.trials is not None:
            return self.trials
        return math.prod(len(values) for values in self.space.values() if isinstance(values, list))


class LmEval(Strict):
    """What lm-evaluation-harness asks every language model of the suite once it is trained; it changes no run."""

    tasks: Annotated[list[str], Field(min_length=1)]
    """Its tasks and groups by name, those of zoobench (`zoobench ls questions`) and of `include` among them."""
    limit: Count | None = None
    """Documents of each task, the first ones; all of them by default."""
    fewshot: Annotated[int, Field(ge=0)] | None = None
    """Solved examples before each question; by default what a task says."""
    max_length: Count | None = None
    """Tokens a model is given at most; by default the length it was trained on."""
    include: str | None = None
    """A folder of YAML tasks, relative to the suite."""
    data: str | None = None
    """A folder of files that zoobench's `local_*` tasks read, relative to the suite; by default $ZOOBENCH_QUESTIONS."""

    @model_validator(mode="before")
    @classmethod
    def _names_only(cls, data: Any) -> Any:
        return {"tasks": data} if isinstance(data, list) else data

    def terms(self) -> dict[str, Any]:
        """What decides on an answer beside the task."""
        return {"limit": self.limit, "fewshot": self.fewshot, "max_length": self.max_length}


class Limits(Strict):
    timeout: Duration | None = None
    """Seconds of wall time after which a run is stopped and recorded as `timeout`."""
    checkpoint: Duration = 20.0
    """Seconds between the checkpoints of a run."""


class Choice(Strict):
    """One architecture in the suite: its registered name, options, and the name of its row."""

    name: str
    options: dict[str, Any] = {}
    label: str

    @property
    def external(self) -> bool:
        """Whether its weights were made elsewhere (`pretrained`)."""
        return self.name == pretrained.NAME


class Question(Strict):
    """One task in the suite, with what it overrides for itself."""

    name: str
    options: dict[str, Any] = {}
    label: str
    stop: Stop | None = None
    match: Match | None = None
    train: dict[str, Any] = {}
    model: dict[str, Any] = {}
    only: Annotated[list[str], Field(min_length=1)] | None = None
    """The rows that play this task, by label; None for all. A row left out of every task is refused."""

    def plays(self, label: str) -> bool:
        """Whether the row called `label` plays this task."""
        return self.only is None or label in self.only


class Suite(Strict):
    """A benchmark: architectures × tasks × seeds under one budget."""

    suite: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    about: str = ""
    extends: str | None = None
    difficulty: str | None = None
    """Which of the tasks' difficulties (`smoke`, `small`, `paper`) fills in what the suite leaves open."""
    difficulties: dict[str, dict[str, Any]] = {}
    """By difficulty, keys that go on top of the suite's own when it is chosen."""
    plugins: list[str] = []
    architectures: Annotated[list[Choice], Field(min_length=1)]
    tasks: Annotated[list[Question], Field(min_length=1)]
    budget: Budget = Budget()
    tracks: dict[str, Track] = {}
    """By name; without any, every task is played once, under `budget`."""
    tuning: Tuning | None = None
    seeds: Annotated[list[int], Field(min_length=1)] = [0, 1, 2]
    train: Train = Train()
    model: dict[str, Any] = {}
    """Options for every architecture that has them: `depth`, `dropout`, `heads`, …"""
    evaluate: Evaluate = Evaluate()
    limits: Limits = Limits()
    lm_eval: LmEval | None = None
    weights: Literal["keep", "drop"] = "keep"
    """Whether final runs leave their trained weights beside the record, for `eval`, `generate` and `export`."""
    reference: str | None = None
    """The row, by label, that normalised scores and times to target are measured by; it changes no run."""
    targets: dict[str, Number] = {}
    """Scores on `valid` to be reached, by task label; it changes no run."""

    @field_validator("tracks")
    @classmethod
    def _named(cls, tracks: dict[str, Track]) -> dict[str, Track]:
        for name in tracks:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
                raise ValueError(f"a track's name has letters, digits, '.', '_' and '-'; got {name!r}")
        return tracks

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("seeds repeat")
        return seeds


@dataclass(frozen=True)
class Loaded:
    """A checked suite, and where it came from."""

    suite: Suite
    source: Source
    folder: Path
    """Relative plug-in paths start here."""

    def error(self, message: str, path: Path_ = ()) -> UserError:
        return self.source.error(message, path)

    def track(self, name: str) -> Track:
        """A track by name; the one without a name is the suite's own budget."""
        return self.suite.tracks[name] if name else Track()

    def options(self, index: int, question: Question, track: str = "") -> dict[str, Any]:
        """The options of one architecture on one task: its own over the track's, the task's, those of every model."""
        choice = self.suite.architectures[index]
        if choice.external:
            return choice.options
        known = {*COMMON_TYPES, *(option.name for option in architectures.get(choice.name).options)}
        common = {**self.suite.model, **question.model, **self.track(track).model}
        return {**{key: value for key, value in common.items() if key in known}, **choice.options}

    def culprit(self, index: int, question: Question, message: str, track: str = "") -> Path_:
        """Where the option stands that a message about one architecture on one task names; else the architecture."""
        choice, task = self.suite.architectures[index], self.suite.tasks.index(question)
        places: list[tuple[Path_, dict[str, Any]]] = [
            (("architectures", index, choice.name), choice.options),
            (("tracks", track, "model"), self.track(track).model),
            (("tasks", task, "model"), question.model),
            (("model",), self.suite.model),
        ]
        found = [(score, (*path, *inner)) for path, options in places for inner, score in _named(options, message)]
        return max(found, key=lambda pair: pair[0])[1] if found else ("architectures", index)

    @property
    def plugins(self) -> list[tuple[str, str]]:
        """Plug-ins as (name in the suite, what to import)."""
        return [(p, str((self.folder / p).resolve()) if p.endswith(".py") else p) for p in self.suite.plugins]


def shipped() -> dict[str, Path]:
    """The suites that come with zoobench, by name."""
    folder = Path(str(importlib.resources.files(task_registry))) / "suites"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(name: str, folder: Path | None = None) -> Path:
    """The file of a suite, by shipped name or by path.

    Raises:
        UserError: neither.
    """
    known = shipped()
    if name in known:
        return known[name]
    path = (folder or Path()) / name
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or "/" in name:
        raise UserError(f"no such suite file: {path}")
    raise UserError(f"unknown suite {name!r}{nearest(name, known)} (or give a path to a YAML file)")


def assignment(text: str) -> tuple[str, Any]:
    """`key=value` of a `--set`, the value read as YAML.

    Raises:
        UserError: it is not that.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"{text!r} is not key=value", file="--set")
    try:
        return key, yaml.load(value, Loader)
    except yaml.YAMLError:
        raise UserError(f"{value!r} is not a YAML value", file="--set", key=key) from None


def load(name: str | Path, overrides: tuple[str, ...] = ()) -> Loaded:
    """Find, read, merge (`extends`), override (`key=value`), validate and check a suite.

    Raises:
        UserError: with the file, the line, the key, and the nearest right name.
    """
    path = find(str(name))
    source = _extended(read(path), path.parent, (path.resolve(),))
    changes = [assignment(override) for override in overrides]
    source = _at_difficulty(source, [value for key, value in changes if key == "difficulty"])
    for key, value in changes:
        if key != "difficulty":
            source.put(tuple(int(k) if k.isdigit() else k for k in key.split(".")), value, "--set")
    suite = _validate(source)
    loaded = Loaded(suite, source, path.parent)
    for index, (shown, where) in enumerate(loaded.plugins):
        try:
            load_plugin(where)
        except FileNotFoundError:
            raise loaded.error(f"plug-in {shown} does not exist (looked for {where})", ("plugins", index)) from None
        except Exception as error:
            message = f"plug-in {shown} does not import: {type(error).__name__}: {error}"
            raise loaded.error(message, ("plugins", index)) from None
    loaded = dataclasses.replace(loaded, suite=_filled_in(loaded))
    _check(loaded)
    return loaded


def _at_difficulty(source: Source, asked: list[Any]) -> Source:
    """The suite at the last difficulty that is asked for, or at its own: with the keys it has for it on top.

    A suite at another difficulty than its own has a name of its own, so that their results stand apart.
    """
    own = source.data.get("difficulty")
    if asked:
        source.put(("difficulty",), asked[-1], "--difficulty")
    chosen, extras = source.data.get("difficulty"), source.data.get("difficulties")
    if isinstance(chosen, str) and isinstance(extras, dict) and isinstance(extras.get(chosen), dict):
        at = ("difficulties", chosen)
        places = {path[2:]: place for path, place in source.places.items() if path[:2] == at and len(path) > 2}
        source = merge(source, Source(extras[chosen], places), whole=("stop",))
    if chosen != own and isinstance(source.data.get("suite"), str):
        source.put(("suite",), f"{source.data['suite']}-{chosen}", "--difficulty")
    return source


def _filled_in(loaded: Loaded) -> Suite:
    """The suite with what its difficulty says about each task, wherever neither the task's entry nor the suite does.

    Raises:
        UserError: a task has difficulties, but not this one.
    """
    suite, chosen = loaded.suite, loaded.suite.difficulty
    if chosen is None:
        return suite
    questions = []
    for index, question in enumerate(suite.tasks):
        try:
            known = task_registry.get(question.name).make.difficulties
        except KeyError as error:
            raise loaded.error(error.args[0], ("tasks", index)) from None
        if known and chosen not in known:
            message = f"{question.name} has no difficulty {chosen!r}{nearest(chosen, known)}"
            raise loaded.error(message, ("difficulty",))
        questions.append(_eased(question, suite, known[chosen]) if known else question)
    return suite.model_copy(update={"tasks": questions})


def _eased(question: Question, suite: Suite, level: Difficulty) -> Question:
    """One task at a difficulty: its entry goes before the suite, the suite before the difficulty."""
    given = suite.budget.model_fields_set
    told = {name: getattr(suite.train, name) for name in suite.train.model_fields_set}
    return question.model_copy(
        update={
            "options": level.under(question.options),
            "stop": question.stop or (suite.budget.stop if "stop" in given else Stop.model_validate(dict(level.stop))),
            "match": question.match or (suite.budget.match if "match" in given else _size(level)),
            "train": {**level.train, **told, **question.train},
            "model": {**level.model, **suite.model, **question.model},
        }
    )


def _size(level: Difficulty) -> Match:
    """The size a difficulty asks for: within 5%, or 10% below 100,000 parameters, where heads make widths coarse."""
    return Match(params=level.params, tolerance=0.05 if level.params >= 100_000 else 0.1)


def _extended(source: Source, folder: Path, seen: tuple[Path, ...] = ()) -> Source:
    parent = source.data.get("extends")
    if parent is None:
        return source
    if not isinstance(parent, str):
        raise source.error("expected the name or path of a suite", ("extends",))
    try:
        path = find(parent, folder)
    except UserError as error:
        raise source.error(error.message, ("extends",)) from None
    if path.resolve() in seen:
        raise source.error(f"{parent} extends itself in a circle", ("extends",))
    return merge(_extended(read(path), path.parent, (*seen, path.resolve())), source, whole=("stop",))


_RESERVED = {"architectures": {"as"}, "tasks": {"as", "stop", "match", "train", "model", "only"}}


def _entry(kind: str, raw: Any, index: int, source: Source) -> dict[str, Any]:
    """`pre_ln`, `s4d: {d_state: 32}` or `{s4d: {…}, as: …}` as the fields of a Choice or Question."""
    path: Path_ = (kind, index)
    if isinstance(raw, str):
        return {"name": raw, "options": {}, "label": raw}
    if not isinstance(raw, dict):
        raise source.error("expected a name, or a name with options such as `s4d: {d_state: 32}`", path)
    own = [key for key in raw if key not in _RESERVED[kind]]
    if len(own) != 1:
        extra = f"; beside it only {', '.join(sorted(_RESERVED[kind]))} may stand" if own else ""
        raise source.error(f"expected one name per entry, found {', '.join(own) or 'none'}{extra}", path)
    name, options = own[0], raw[own[0]] or {}
    if not isinstance(options, dict):
        raise source.error("options must be a mapping such as {length: 128}", (*path, name))
    plain = pretrained.label(options) if kind == "architectures" and name == pretrained.NAME else name
    label = str(raw.get("as") or plain)
    rest = {key: raw[key] for key in raw if key not in (name, "as")}
    return {"name": name, "options": options, "label": label, **rest}


def _label(entries: list[dict[str, Any]]) -> None:
    """Entries of one name are told apart by their options."""
    plain = [entry["name"] for entry in entries if entry["label"] == entry["name"]]
    for entry in entries:
        if entry["label"] == entry["name"] and plain.count(entry["name"]) > 1 and entry["options"]:
            shown = ", ".join(f"{k}={v}" for k, v in entry["options"].items())
            entry["label"] = f"{entry['name']}({shown})"


def _validate(source: Source) -> Suite:
    data = dict(source.data)
    for kind in _RESERVED:
        if isinstance(data.get(kind), list):
            data[kind] = [_entry(kind, raw, i, source) for i, raw in enumerate(data[kind])]
            _label(data[kind])
            for index, entry in enumerate(data[kind]):
                if entry["label"] in [other["label"] for other in data[kind][:index]]:
                    message = f"{entry['label']!r} stands twice; name one of them with `as:`"
                    raise source.error(message, (kind, index))
    try:
        at: Path_ = ()
        suite = Suite.model_validate(data)
        for index, task in enumerate(suite.tasks):
            at = ("tasks", index, "train")
            Train.model_validate({**suite.train.model_dump(), **task.train})
    except ValidationError as error:
        first = error.errors()[0]
        path = (*at, *(part for part in first["loc"] if not isinstance(part, str) or "[" not in part))
        if first["type"] == "unknown_key":
            path = (*path, first["ctx"]["key"])
        raise source.error(_words(first), path) from None
    for message, path in _wrong_tuning(suite):
        raise source.error(message, ("tuning", *path))
    for name, path in _given(suite):
        if suite.tuning and name in suite.tuning.space:
            raise source.error(f"{name} is also tuned; leave it out here, or take it out of tuning", path)
    return suite


def _wrong_tuning(suite: Suite) -> Iterator[tuple[str, Path_]]:
    """What is wrong with how a suite tunes, and the key below `tuning` at which it is."""
    tuning = suite.tuning
    if tuning is None:
        return
    space, any_range = tuning.space, next((n for n, v in tuning.space.items() if isinstance(v, Range)), None)
    if not space:
        yield f"nothing to tune; give a list or a range of at least one of {', '.join(TUNABLE)}", ()
    for name, values in space.items():
        listed = values if isinstance(values, list) else []
        for index, value in enumerate(listed):
            if value in listed[:index]:
                yield f"{value:g} stands twice", (name, index)
    if tuning.sampler is None:
        if any_range:
            yield "a range needs a sampler: tpe, random or qmc; or give a list of values", (any_range,)
        if tuning.trials is not None:
            yield (
                "a grid tries every combination once; leave trials out, or name a sampler: tpe, random or qmc",
                ("trials",),
            )
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
    if tuning.seed in suite.seeds:
        yield f"{tuning.seed} is also one of the seeds; a trial's seed must be its own", ("seed",)


def _given(suite: Suite) -> Iterator[tuple[str, Path_]]:
    """Every model option that a suite sets by hand, and where."""
    places: list[tuple[Path_, dict[str, Any]]] = [(("model",), suite.model)]
    places += [(("tasks", i, "model"), task.model) for i, task in enumerate(suite.tasks)]
    places += [(("architectures", i, choice.name), choice.options) for i, choice in enumerate(suite.architectures)]
    for path, options in places:
        yield from ((name, (*path, name)) for name in options)


def _words(error: Any) -> str:
    """Pydantic's message in the user's words."""
    message = re.sub(r"^Value error, ", "", error["msg"])
    if error["type"] == "missing":
        return "this key is required"
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        expected = [word.strip(" '") for word in re.split(r",| or ", error["ctx"]["expected"])]
        return f"{error['input']!r} is not known here{nearest(error['input'], expected)}"
    if error["type"] == "string_pattern_mismatch":
        return f"use letters, digits, '.', '_' and '-', starting with a letter or digit; got {error['input']!r}"
    for kind, words in _KINDS.items():
        if error["type"].startswith(kind):
            return f"must be {words}, got {error['input']!r}"
    if error["type"] == "too_short":
        return f"needs at least {error['ctx']['min_length']} entry"
    own = error["type"] in ("value_error", "mapping", "unknown_key") or isinstance(error["input"], (list, dict))
    return message if own else f"{message}, got {error['input']!r}"


_KINDS = {
    "int_": "a whole number",
    "float_": "a number",
    "finite_number": "a finite number",
    "bool_": "true or false",
    "string_": "text",
    "list_": "a list",
    "tuple_": "a list",
    "dict_": "a mapping",
}
"""Pydantic's types of error, and what should have come."""


def _check(loaded: Loaded) -> None:
    """Every name and every option, against the registries."""
    shared = dict(COMMON_TYPES)
    for index, choice in enumerate(loaded.suite.architectures):
        path: Path_ = ("architectures", index)
        if choice.external:
            _check_external(choice, loaded, (*path, choice.name))
            continue
        try:
            entry = architectures.get(choice.name)
        except KeyError as error:
            raise loaded.error(error.args[0], path) from None
        known: dict[str, Any] = {option.name: option.annotation for option in entry.options}
        shared = known | shared
        check_options(choice.options, known | COMMON_TYPES, choice.name, loaded, (*path, choice.name))
    check_options(loaded.suite.model, shared, "model", loaded, ("model",))
    for name, track in loaded.suite.tracks.items():
        check_options(track.model, shared, "model", loaded, ("tracks", name, "model"))
    for index, question in enumerate(loaded.suite.tasks):
        path = ("tasks", index)
        check_options(question.model, shared, "model", loaded, (*path, "model"))
        try:
            task_registry.build(question.name, **question.options)
        except (KeyError, TypeError, ValueError) as error:
            raise loaded.error(str(error.args[0] if error.args else error), (*path, question.name)) from None
    _check_only(loaded)
    _check_measures(loaded.suite, loaded)
    _check_recipes(loaded)


def _check_external(choice: Choice, loaded: Loaded, path: Path_) -> None:
    """An external row names one kind of checkpoint, and options that this kind has."""
    from zoo.published import KINDS

    try:
        kind, _, rest = pretrained.kind_and_where(choice.options)
    except ValueError as error:
        raise loaded.error(str(error), path) from None
    options = options_of(KINDS.resolve(kind), skip=1)
    check_options(rest, {option.name: option.annotation for option in options}, kind, loaded, path)


def _check_recipes(loaded: Loaded) -> None:
    """Every architecture takes the options it has on every task it plays."""
    for question in loaded.suite.tasks:
        for index, choice in enumerate(loaded.suite.architectures):
            for track in loaded.suite.tracks or ("",) if question.plays(choice.label) else ():
                _check_recipe(loaded, index, question, track)


def _check_recipe(loaded: Loaded, index: int, question: Question, track: str) -> None:
    name, options = loaded.suite.architectures[index].name, loaded.options(index, question, track)
    if loaded.suite.architectures[index].external:
        return
    if options.pop("width", 1) < 1:
        raise loaded.error("width must be at least 1", loaded.culprit(index, question, "width", track))
    try:
        architectures.recipe(name, **options)
    except Exception as error:  # a plug-in may raise anything
        own = isinstance(error, (TypeError, ValueError))
        message = str(error) if own else f"{name}: {type(error).__name__}: {error}"
        raise loaded.error(message, loaded.culprit(index, question, message, track)) from None


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


def _check_only(loaded: Loaded) -> None:
    """`only` names rows of the suite, and every row plays a task."""
    labels = [choice.label for choice in loaded.suite.architectures]
    for index, question in enumerate(loaded.suite.tasks):
        for at, label in enumerate(question.only or []):
            if label not in labels:
                message = f"{label!r} is no architecture of this suite{nearest(label, labels)}"
                raise loaded.error(message, ("tasks", index, "only", at))
    for index, label in enumerate(labels):
        if not any(question.plays(label) for question in loaded.suite.tasks):
            raise loaded.error(f"{label!r} plays no task; name it under `only`", ("architectures", index))


def _check_measures(suite: Suite, loaded: Loaded) -> None:
    """`reference` is a row and `targets` are for tasks of the suite."""
    rows, questions = [choice.label for choice in suite.architectures], [question.label for question in suite.tasks]
    if suite.reference is not None and suite.reference not in rows:
        message = f"{suite.reference!r} is no architecture of this suite{nearest(suite.reference, rows)}"
        raise loaded.error(message, ("reference",))
    for task in suite.targets:
        if task not in questions:
            raise loaded.error(f"{task!r} is no task of this suite{nearest(task, questions)}", ("targets", task))


COMMON_TYPES: dict[str, Any] = {
    **architectures.COMMON,
    "width": int,
}
"""Options every architecture takes, `width` for suites that match nothing."""


def check_options(options: dict[str, Any], known: dict[str, Any], owner: str, loaded: Loaded, path: Path_) -> None:
    """Every option is known and of the right type.

    Raises:
        UserError: at the option's own line.
    """
    for name, value in options.items():
        if name not in known:
            raise loaded.error(f"{owner} has no option {name!r}{nearest(name, known)}", (*path, name))
        problem = mismatch(value, known[name])
        if problem:
            raise loaded.error(f"{name} {problem}", (*path, name))
