"""Questions in files the user has: one JSON object a line, in the forms of llm-foundry's `local_data`."""

import json
import os
from pathlib import Path
from typing import Any

from harness.errors import UserError

VARIABLE = "ZOOBENCH_QUESTIONS"
SOURCE = "https://github.com/mosaicml/llm-foundry/tree/main/scripts/eval/local_data"

Row = dict[str, Any]


def dataset(*, questions: str, **_: Any) -> dict[str, Any]:
    """The split `test` of the questions called `questions`, for lm_eval's `custom_dataset`."""
    from datasets import Dataset

    return {"test": Dataset.from_list(read(find(questions), KEYS[questions]))}


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


def read(path: Path, keys: tuple[str, ...]) -> list[Row]:
    """These keys of every question of a file; a UserError names a line that is damaged, or says that there is none."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", file=path) from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(parse(json.loads(line), keys))
        except json.JSONDecodeError as error:
            raise UserError(f"not JSON: {error.msg} (column {error.colno})", file=path, line=number) from error
        except ValueError as error:  # also what is not UTF-8
            raise UserError(str(error), file=path, line=number) from error
    if not rows:
        raise UserError("holds no questions", file=path)
    return rows


KEYS = {
    "lambada_openai": ("context", "continuation"),
    "arc_easy": ("query", "choices", "gold"),
    "piqa": ("query", "choices", "gold"),
    "copa": ("query", "choices", "gold"),
    "winogrande": ("context_options", "continuation", "gold"),
}
"""What is read of each row, by file: texts, a list of texts to choose from, and the index of the true one."""


def parse(row: Any, keys: tuple[str, ...]) -> Row:
    """What is needed of a row; a ValueError says what is wrong."""
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    choices = 0
    for key in keys:
        if key not in row:
            raise ValueError(f"{key!r} is missing; the row has {', '.join(map(repr, row)) or 'nothing'}")
        value = row[key]
        if key in ("choices", "context_options"):
            if not isinstance(value, list) or len(value) < 2:
                raise ValueError(f"{key!r} must be a list of two texts or more, got {value!r}")
            for i, text in enumerate(value):
                _check_text(f"{key}[{i}]", text)
            choices = len(value)
        elif key != "gold":
            _check_text(key, value)
        elif type(value) is not int or not 0 <= value < choices:
            raise ValueError(f"'gold' must be a whole number from 0 to {choices - 1}, got {value!r}")
    return {key: row[key] for key in keys}


def _check_text(key: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key!r} must be a text that is not empty, got {value!r}")
