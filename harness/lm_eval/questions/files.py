"""Questions in files the user has: one JSON object a line, in the forms of llm-foundry's `local_data`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.errors import UserError

VARIABLE = "ZOOBENCH_QUESTIONS"
SOURCE = "https://github.com/mosaicml/llm-foundry/tree/main/scripts/eval/local_data"

Row = dict[str, Any]


def dataset(*, questions: str, **_: Any) -> dict[str, Any]:
    """The split `test` of the questions called `questions`, for lm_eval's `custom_dataset`."""
    from datasets import Dataset

    return {"test": Dataset.from_list(read(find(questions), FORMS[questions]))}


def find(questions: str) -> Path:
    """`NAME.jsonl` in the folder `ZOOBENCH_QUESTIONS` names, or in a folder of that; a UserError where it is not."""
    folder, name = os.environ.get(VARIABLE), f"{questions}.jsonl"
    where = f"such files are in {SOURCE}"
    if not folder:
        raise UserError(f"{name} is needed: name the folder it is in by --data FOLDER or {VARIABLE}; {where}")
    home = Path(folder).expanduser()
    found = [path for path in (home / name, *sorted(home.glob(f"*/{name}"))) if path.is_file()]
    if not found:
        what = "holds no" if home.is_dir() else "is no folder, so there is no"
        raise UserError(f"{home} (--data or {VARIABLE}) {what} {name}; {where}")
    return found[0]


def read(path: Path, form: Callable[[Row], Row]) -> list[Row]:
    """Every question of a file; a UserError names the line that is not of this form, or says that there is none."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", file=path) from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("not a JSON object")
            rows.append(form(row))
        except json.JSONDecodeError as error:
            raise UserError(f"not JSON: {error.msg} (column {error.colno})", file=path, line=number) from error
        except ValueError as error:  # also what is not UTF-8
            raise UserError(str(error), file=path, line=number) from error
    if not rows:
        raise UserError("holds no questions", file=path)
    return rows


def word(row: Row) -> Row:
    """A text and how it goes on: `context`, `continuation`."""
    return {key: _text(key, _value(row, key)) for key in ("context", "continuation")}


def choice(row: Row) -> Row:
    """A question and its answers: `query`, `choices`, `gold` (the index of the true one)."""
    choices = _texts(row, "choices")
    return {"query": _text("query", _value(row, "query")), "choices": choices, "gold": _gold(row, len(choices))}


def contexts(row: Row) -> Row:
    """Beginnings and the one way they all go on: `context_options`, `continuation`, `gold` (the true beginning)."""
    options = _texts(row, "context_options")
    continuation = _text("continuation", _value(row, "continuation"))
    return {"context_options": options, "continuation": continuation, "gold": _gold(row, len(options))}


FORMS: dict[str, Callable[[Row], Row]] = {
    "lambada_openai": word,
    "arc_easy": choice,
    "piqa": choice,
    "copa": choice,
    "winogrande": contexts,
}
"""How a row of each file is read: gives what is needed of it, or raises a ValueError that says what is wrong."""


def _value(row: Row, key: str) -> Any:
    if key not in row:
        raise ValueError(f"{key!r} is missing; the row has {', '.join(map(repr, row)) or 'nothing'}")
    return row[key]


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key!r} must be a text that is not empty, got {value!r}")
    return value


def _texts(row: Row, key: str) -> list[str]:
    texts = _value(row, key)
    if not isinstance(texts, list) or len(texts) < 2:
        raise ValueError(f"{key!r} must be a list of two texts or more, got {texts!r}")
    return [_text(f"{key}[{i}]", text) for i, text in enumerate(texts)]


def _gold(row: Row, choices: int) -> int:
    gold = _value(row, "gold")
    if type(gold) is not int or not 0 <= gold < choices:
        raise ValueError(f"'gold' must be a whole number from 0 to {choices - 1}, got {gold!r}")
    return gold
