"""Models of the zoo as folders: `zoo.json` (architecture, shape, options, tokenizer) and `model.safetensors`."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zoo
from zoo import tokenizers
from zoo.contract import Model
from zoo.files import open_regular, whole, write
from zoo.options import check, mismatch
from zoo.published import files
from zoo.published.errors import PretrainedError, building, writing
from zoo.registry import load_plugin, options_of
from zoo.types import Role, Shape

FORMAT = 1


def save(model: Model, folder: str | Path, *, made: dict[str, Any] | None = None) -> Path:
    """Write a model that `zoo.build` made, and its tokenizer, to a folder that `load` opens; `zoo.json` last.

    Args:
        made: anything JSON can hold that says how the weights were made.

    Raises:
        PretrainedError: `zoo.build` did not make the model, or the folder cannot be written.
    """
    from safetensors.torch import save_model

    if not model.built:
        raise PretrainedError(f"{type(model).__name__} was not made by zoo.build: it cannot be saved as a zoo folder")
    folder = Path(folder)
    description = {
        "format": FORMAT,
        **model.built,
        "role": model.role,
        "shape": {k: v for k, v in dataclasses.asdict(model.shape).items() if v is not None},
        "tokenizer": model.tokenizer.describe() if model.tokenizer else None,
        "made": made or {},
    }
    try:
        text = json.dumps(description, indent=1, ensure_ascii=False) + "\n"
    except TypeError as error:
        raise PretrainedError(
            f"an option of {description['architecture']} cannot be written as JSON: {error}"
        ) from None
    with writing(folder):
        with whole(folder / "model.safetensors") as part:
            save_model(model, str(part), metadata={"format": "pt"})
        write(folder / "zoo.json", text)
    return folder


def load(where: str, *, plugins: str | Sequence[str] = ()) -> Model:
    """The model in a folder, or in the folder of a run.

    Args:
        plugins: a file or module, or several, to import first: those that register the architecture.
    """
    from safetensors.torch import load_model

    path = files.find(where)
    folder = path if (path / "zoo.json").is_file() else path / "model"
    description = files.mapping(folder / "zoo.json")
    if (found := description.get("format")) != FORMAT:
        raise PretrainedError(f"{folder / 'zoo.json'}: format {found!r}; this zoobench reads {FORMAT}")
    _check(description, folder / "zoo.json")
    for plugin in [plugins] if isinstance(plugins, str) else plugins:
        load_plugin(plugin)
    try:
        with building(folder):
            shape = Shape(**description["shape"])
            model = zoo.build(description["architecture"], description["role"], shape=shape, **description["options"])
            model.tokenizer = tokenizers.make(description["tokenizer"]) if description.get("tokenizer") else None
    except KeyError as error:
        hint = _hint(description.get("made")) if "unknown architecture" in str(error) else ""
        raise PretrainedError(f"{folder}: {error.args[0]}{hint}") from None
    try:
        open_regular(folder / "model.safetensors").close()  # a pipe would be waited for
        load_model(model, folder / "model.safetensors")
    except Exception as error:  # of safetensors, or torch's list of all that does not fit
        files.fit(model, files.read(folder / "model.safetensors"), folder)
        raise PretrainedError(f"{folder}: {error}") from None
    return model


def _check(description: dict[str, Any], file: Path) -> None:
    """Refuse a description whose keys hold something else than `save` writes."""
    kinds = {"architecture": str, "role": Role, "options": dict, "shape": dict, "tokenizer": dict | None}
    for key, kind in kinds.items():
        if problem := mismatch(description.get(key), kind):
            raise PretrainedError(f"{file}: {key} {problem}")
    try:
        check("shape", options_of(Shape), description["shape"])
    except (TypeError, ValueError) as error:
        raise PretrainedError(f"{file}: {error}") from None


def _hint(made: Any) -> str:
    """What to import for an architecture that is not known: nothing that a folder names is imported by itself."""
    named = made.get("plugins") if isinstance(made, dict) else None
    names = ", ".join(map(str, named)) if isinstance(named, list) and named else "the plug-in that registers it"
    return f"; it was made with {names}: name it with --plugin, or plugins="
