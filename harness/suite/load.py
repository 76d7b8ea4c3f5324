"""From the name of a suite to a checked suite: find, read, extend, override, parse, fill in, check."""

import importlib.resources
import os
import re
import reprlib
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import tasks as task_registry
from harness.errors import UserError
from harness.isolation.attempt import Unanswered, attempt
from harness.records.parts import plain
from harness.records.spec import PRETRAINED
from harness.records.store import default_root
from harness.suite import pretrained
from harness.suite.check import check, check_architectures, check_count
from harness.suite.loaded import LoadedSuite, SuiteTask
from harness.suite.schema import Match, Stop, Suite, TaskEntry, Train
from harness.suite.trust import check as check_trust
from harness.suite.yaml_source import Path_, Source, merge, read, read_value
from tasks.base import Difficulty
from zoo.registry import load_plugin, nearest

MOST_PARENTS = 20
"""Suites that one extends, one through the other."""


def load(
    suite: str | Path | Mapping[str, Any] | Source,
    overrides: tuple[str, ...] = (),
    *,
    trust: bool = False,
    to_run: bool = False,
) -> LoadedSuite:
    """Find, read, merge (`extends`), override (`key=value`), validate and check a suite; import its plug-ins.

    Args:
        suite: a name that ships, a path, or what would stand in the file: a mapping, whose plug-ins and parent are
            looked for in the working directory.
        trust: whether to import plug-ins that were not trusted before (`harness.suite.trust`); those that the caller
            names, in a mapping or in `overrides`, are.
        to_run: whether the suite is run: code that lies in the working directory or below is then trusted, and each
            plug-in is imported in a process of its own first, in case it hangs or ends it.

    Raises:
        UserError: with the file, the line, the key, and the nearest right name.
    """
    source, folder = _merged(suite, overrides)
    loaded = LoadedSuite(_parse(source), [], source, folder, trust)
    if to_run and _lies_here(loaded):
        loaded = replace(loaded, trusted=True)
    named = isinstance(suite, Mapping) and "plugins" in suite
    named |= any(override.startswith("plugins=") for override in overrides)
    error = partial(loaded.error, path=("plugins",))
    code = [where for _, where in loaded.plugins if not where.endswith(".py") or Path(where).is_file()]
    check_trust(code, trusted=loaded.trusted or named, error=error)
    _load_plugins(loaded, wary=to_run)
    return _checked(loaded)


def load_without_code(suite: str, overrides: tuple[str, ...] = ()) -> tuple[Suite, LoadedSuite | None]:
    """A suite as its files state it, and loaded; None where it names plug-ins, which nobody asked to import.

    Raises:
        UserError: with the file, the line, the key, and the nearest right name.
    """
    source, folder = _merged(suite, overrides)
    loaded = LoadedSuite(_parse(source), [], source, folder)
    return loaded.suite, None if loaded.plugins else _checked(loaded)


def _checked(loaded: LoadedSuite) -> LoadedSuite:
    """A suite whose plug-ins are imported, with its tasks."""
    check_architectures(loaded)
    check_count(loaded)
    loaded.tasks.extend(_resolved(loaded, index, entry) for index, entry in enumerate(loaded.suite.tasks))
    check(loaded)
    return loaded


def read_suite(suite: str | Path, overrides: tuple[str, ...] = ()) -> Suite:
    """A suite as its file and those it extends state it, typed; names and options are not looked up, nothing imported.

    Raises:
        UserError: with the file, the line and the key.
    """
    return _parse(_merged(suite, overrides)[0])


def _merged(suite: str | Path | Mapping[str, Any] | Source, overrides: tuple[str, ...]) -> tuple[Source, Path]:
    """A suite with what it extends and what overrides it, and the folder that its paths start from."""
    own, folder = _source(suite)
    changes = [assignment(override) for override in overrides]
    source = _at_difficulty(_extended(own, folder), [value for key, value in changes if key == "difficulty"])
    for key, value in changes:
        if key != "difficulty":
            source.put(tuple(int(k) if k.isdecimal() and len(k) < 10 else k for k in key.split(".")), value, "--set")
    return source, folder


def shipped() -> dict[str, Path]:
    """The suites that come with zoobench, by name."""
    folder = Path(str(importlib.resources.files(task_registry))) / "suites"
    return {path.stem: path for path in sorted(folder.rglob("*.yaml"))}


def find_suite(name: str, folder: Path | None = None) -> Path:
    """The file of a suite, by path, by shipped name, or by the name of one that was made on the command line.

    Raises:
        UserError: it is none of these.
    """
    known = shipped()
    if name in known:
        return known[name]
    path, made_here = (folder or Path()) / name, default_root() / name / "suite.yaml"
    if os.path.isfile(path):  # false of any text that can be no path
        return path
    if "/" not in name and os.path.isfile(made_here):
        return made_here
    if path.suffix in (".yaml", ".yml") or "/" in name:
        raise UserError(f"no such suite file: {path}")
    raise UserError(f"unknown suite {name!r}{nearest(name, known)} (or give a path to a YAML file)")


def assignment(text: str) -> tuple[str, Any]:
    """`key=value` of a `--set`, the value read as YAML; a UserError where it is not that."""
    key, equals, value = text.partition("=")
    if not equals or not key or not key.isprintable():
        raise UserError(f"{text!r} is not key=value", file="--set")
    try:
        return key, read_value(value, "--set")
    except UserError as error:
        raise UserError(f"{reprlib.repr(value)} {error.message}", file="--set", key=key) from None


def _source(suite: str | Path | Mapping[str, Any] | Source) -> tuple[Source, Path]:
    """A suite as written, and the folder that its paths start from."""
    if isinstance(suite, Source):
        return suite, Path()
    if isinstance(suite, Mapping):
        return Source(plain(dict(suite))), Path()
    path = find_suite(str(suite))
    return read(path), path.parent


def _extended(source: Source, folder: Path, extending: tuple[Path, ...] = ()) -> Source:
    """A suite on top of the one that it extends, which is looked for in `folder` if it does not ship."""
    parent = source.data.get("extends")
    if parent is None:
        return source
    if not isinstance(parent, str):
        raise source.error("expected the name or path of a suite", ("extends",))
    try:
        base = find_suite(parent, folder)
    except UserError as error:
        raise source.error(error.message, ("extends",)) from None
    if base.resolve() in extending:
        raise source.error(f"{parent} extends itself in a circle", ("extends",))
    if len(extending) == MOST_PARENTS:
        raise source.error(f"one suite extends more than {MOST_PARENTS} others", ("extends",))
    return merge(_extended(read(base), base.parent, (*extending, base.resolve())), source, whole=("stop",))


def _at_difficulty(source: Source, given: list[Any]) -> Source:
    """The suite at the last difficulty that is given, or at its own: with the keys it has for it on top.

    A suite at another difficulty than its own has a name of its own, so that their results stand apart.
    """
    own = source.data.get("difficulty")
    if given:
        source.put(("difficulty",), given[-1], "--difficulty")
    chosen, extras = source.data.get("difficulty"), source.data.get("difficulties")
    if isinstance(chosen, str) and isinstance(extras, dict) and isinstance(extras.get(chosen), dict):
        at = ("difficulties", chosen)
        places = {path[2:]: place for path, place in source.places.items() if path[:2] == at and len(path) > 2}
        source = merge(source, Source(extras[chosen], places), whole=("stop",))
    if chosen != own and isinstance(source.data.get("suite"), str):
        source.put(("suite",), f"{source.data['suite']}-{chosen}", "--difficulty")
    return source


def _parse(source: Source) -> Suite:
    """The suite as its schema types it."""
    data = dict(source.data)
    for kind in _RESERVED:
        if isinstance(data.get(kind), list):
            data[kind] = _entries(kind, data[kind], source)
    try:
        return Suite.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(part for part in first["loc"] if not isinstance(part, str) or "[" not in part)
        if first["type"] == "unknown_key":
            path = (*path, first["ctx"]["key"])
        raise source.error(_words(first), path) from None


_RESERVED = {"architectures": {"as"}, "tasks": {"as", "stop", "match", "train", "model", "only"}}
"""Keys that may stand beside the name of an entry."""


def _entries(kind: str, raw: list[Any], source: Source) -> list[dict[str, Any]]:
    """The fields of each entry; those of one name are told apart by their options."""
    entries = [_entry(kind, one, (kind, index), source) for index, one in enumerate(raw)]
    plain, labels = Counter(entry["name"] for entry in entries if entry["label"] == entry["name"]), set[str]()
    for index, entry in enumerate(entries):
        if entry["label"] == entry["name"] and plain[entry["name"]] > 1 and entry["options"]:
            shown = ", ".join(f"{name}={value}" for name, value in entry["options"].items())
            entry["label"] = f"{entry['name']}({shown})"
        if entry["label"] in labels:
            raise source.error(f"{entry['label']!r} stands twice; name one of them with `as:`", (kind, index))
        labels.add(entry["label"])
    return entries


def _entry(kind: str, raw: Any, path: Path_, source: Source) -> dict[str, Any]:
    """`pre_ln`, `s4d: {d_state: 32}` or `{s4d: {…}, as: …}` as the fields of an entry."""
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
    plain = pretrained.label(options) if kind == "architectures" and name == PRETRAINED else name
    rest = {key: raw[key] for key in raw if key not in (name, "as")}
    return {"name": name, "options": options, "label": str(raw.get("as") or plain), **rest}


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


def _lies_here(loaded: LoadedSuite) -> bool:
    """Whether a suite and the files of code that it names lie in the working directory or below it."""
    include = loaded.suite.lm_eval and loaded.suite.lm_eval.include
    files = [where for _, where in loaded.plugins if where.endswith(".py")] + ([include] if include else [])
    return all((loaded.folder / file).resolve().is_relative_to(Path.cwd()) for file in (".", *files))


def _load_plugins(loaded: LoadedSuite, *, wary: bool) -> None:
    for index, (shown, where) in enumerate(loaded.plugins):
        try:
            if wary:
                attempt(_try_plugin, where, seconds=60.0)
            load_plugin(where)
        except FileNotFoundError:
            raise loaded.error(f"plug-in {shown} does not exist (looked for {where})", ("plugins", index)) from None
        except Unanswered as error:
            raise loaded.error(f"plug-in {shown} does not import: {error}", ("plugins", index)) from None
        except Exception as error:
            message = f"plug-in {shown} does not import: {type(error).__name__}: {error}"
            raise loaded.error(message, ("plugins", index)) from None


def _try_plugin(where: str) -> None:
    with suppress(Exception):  # which the caller will meet
        load_plugin(where)


def _resolved(loaded: LoadedSuite, index: int, entry: TaskEntry) -> SuiteTask:
    """One task as its runs are to be: its entry goes before the suite, the suite before the difficulty.

    Raises:
        UserError: the task is unknown, has other difficulties than this one, or does not take its options.
    """
    suite, level = loaded.suite, _difficulty(loaded, index, entry)
    given = suite.budget.model_fields_set
    options, model, train = entry.options, {**suite.model, **entry.model}, entry.train.over(suite.train)
    stop, match = entry.stop or suite.budget.stop, entry.match or suite.budget.match
    if level is not None:
        options, model = level.under(options), {**level.model, **model}
        train = entry.train.over(suite.train.over(Train.model_validate(level.train)))
        stop = stop if entry.stop or "stop" in given else Stop.model_validate(dict(level.stop))
        match = match if entry.match or "match" in given else _size(level)
    try:
        task = task_registry.build(entry.name, **options)
    except (KeyError, TypeError, ValueError) as error:
        raise loaded.error(str(error.args[0] if error.args else error), ("tasks", index, entry.name)) from None
    return SuiteTask(index, entry, options, task, stop.rule(), match.rule() if match else None, train.settings(), model)


def _difficulty(loaded: LoadedSuite, index: int, entry: TaskEntry) -> Difficulty | None:
    """What the suite's difficulty says about a task; None where the suite has none or the task knows none."""
    chosen = loaded.suite.difficulty
    if chosen is None:
        return None
    try:
        known = task_registry.get(entry.name).make.difficulties
    except KeyError as error:
        raise loaded.error(error.args[0], ("tasks", index)) from None
    if known and chosen not in known:
        raise loaded.error(f"{entry.name} has no difficulty {chosen!r}{nearest(chosen, known)}", ("difficulty",))
    return known[chosen] if known else None


def _size(level: Difficulty) -> Match:
    """The size a difficulty asks for: within 5%, or 10% below 100,000 parameters, where heads make widths coarse."""
    return Match(params=level.params, tolerance=0.05 if level.params >= 100_000 else 0.1)
