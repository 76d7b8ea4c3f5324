"""Find and read published weights: on disk, or on the Hugging Face hub and then in its cache.

safetensors are preferred to pickles, and a pickle is read for its tensors only: opening a file runs no code.
"""

import argparse
import contextlib
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zoo.files import open_regular, read_json, user_path
from zoo.options import mismatch
from zoo.published.errors import PretrainedError, need

NAMES = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
"""File names of the weights in a folder, by preference; NAME.index.json lists the parts of weights in several files."""
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which training checkpoints keep their weights; averaged weights are preferred."""


def find(where: str, patterns: Iterable[str] = ("*.json", "*.txt", "*.model", "*.safetensors")) -> Path:
    """The file or folder at a path, or with `hf:` before it of an id on the hub: from its cache, or downloaded.

    What has no scheme is a path: a mistyped one asks no hub. Only files matching `patterns` are downloaded, and pickles
    where there are no safetensors. A cached snapshot is used without asking whether the hub has a newer one.
    """
    if not where.startswith("hf:"):
        path = user_path(where) if where.startswith("~") else Path(where)
        if not os.path.exists(path):
            raise PretrainedError(f"{where}: there is no such file or folder; a model on the hub is hf:owner/name")
        return path
    parts = where.removeprefix("hf:").split("/")
    if len(parts) < 2 or "\\" in where:
        raise PretrainedError(f"{where}: a model on the hub is hf:owner/name")
    hub = need("huggingface_hub", "hub", f"to look for {where}")
    repository, file = "/".join(parts[:2]), "/".join(parts[2:])
    try:
        if file:
            return Path(hub.hf_hub_download(repository, file))
        return _downloaded(hub.snapshot_download, repository, tuple(patterns))
    except Exception as error:  # of requests, httpx or the hub: it differs by version
        raise PretrainedError(_unreachable(where, error)) from None


def _downloaded(snapshot: Any, repository: str, patterns: tuple[str, ...]) -> Path:
    with contextlib.suppress(Exception):  # not cached: the name of this error differs by version
        cached = Path(snapshot(repository, allow_patterns=list(patterns), local_files_only=True))
        if any(path.suffix in SUFFIXES for path in cached.iterdir()):
            return cached
    folder = Path(snapshot(repository, allow_patterns=list(patterns)))
    if not any(folder.glob("*.safetensors")):
        folder = Path(snapshot(repository, allow_patterns=[*patterns, "*.bin", "*.pth"]))
    return folder


def _unreachable(where: str, error: Exception) -> str:
    kind = type(error).__name__
    if "NotFound" in kind and "Local" not in kind:
        return f"{where}: not on the hub ({kind})"
    if "Gated" in kind:
        return f"{where}: the hub asks you to accept its terms and log in (huggingface-cli login)"
    return f"{where}: not in the hub's cache, and the hub cannot be reached ({kind})"


def config(path: Path) -> dict[str, Any] | None:
    """The `config.json` in the folder of the weights, whose `model_type` is a name if it is there; None without one."""
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.is_file():
        return None
    found = mapping(file)
    if problem := mismatch(found.get("model_type"), str | None):
        raise PretrainedError(f"{file}: model_type {problem}")
    return found


def mapping(file: Path) -> dict[str, Any]:
    """The mapping that a JSON file holds."""
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        raise PretrainedError(f"{file}: not readable as JSON ({error})") from None
    if not isinstance(content, dict):
        raise PretrainedError(f"{file}: must hold a mapping, not {type(content).__name__}")
    return content


def weights_in(path: Path) -> list[Path]:
    """The files with the weights at a path; safetensors are preferred."""
    if path.is_file():
        return [path]
    for name in NAMES:
        index = path / f"{name}.index.json"
        if index.is_file():
            return _indexed(index)
        if (path / name).is_file():
            return [path / name]
    for suffix in SUFFIXES:
        files = sorted(path.glob(f"*{suffix}"))
        if len(files) == 1:
            return files
        if files:
            names = ", ".join(file.name for file in files[:4])
            raise PretrainedError(f"{path}: several files of weights ({names}, …); name one of them")
    raise PretrainedError(f"{path}: no weights here (looked for {', '.join(NAMES)} and *{', *'.join(SUFFIXES)})")


def _indexed(index: Path) -> list[Path]:
    parts = mapping(index).get("weight_map")
    if not isinstance(parts, dict):
        raise PretrainedError(f"{index}: has no weight_map")
    for part in parts.values():
        if not isinstance(part, str) or Path(part).name != part:
            raise PretrainedError(f"{index}: names {part!r}, which is no file beside it")
        if not (index.parent / part).is_file():
            raise PretrainedError(f"{index.parent}: {index.name} names {part}, which is not there")
    return [index.parent / part for part in sorted(set(parts.values()))]


def read(path: Path) -> dict[str, Tensor]:
    """All tensors at a path, on the CPU."""
    weights: dict[str, Tensor] = {}
    for file in weights_in(path):
        weights |= _tensors(file)
    return weights


def tensor_names(path: Path) -> set[str]:
    """The names of the tensors at a path, without reading the data of safetensors; empty where there are none."""
    try:
        files = weights_in(path)
    except PretrainedError:
        return set()
    names: set[str] = set()
    for file in files:
        if file.suffix == ".safetensors":
            with _opened(file) as tensors:
                names |= set(tensors.keys())
        else:
            names |= set(_tensors(file))
    return names


def _opened(file: Path) -> Any:
    try:
        open_regular(file).close()
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise PretrainedError(f"{file}: damaged or not safetensors ({error})") from None


def _tensors(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        with _opened(file) as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118  # not a dict
    try:
        # many keep the training options in a Namespace
        safe = torch.serialization.safe_globals([argparse.Namespace])
        with open_regular(file) as opened, safe, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle that torch did not write, which it then reads or refuses
            content = torch.load(opened, map_location="cpu", weights_only=True)
    except Exception as error:  # anything that torch stumbles over
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "weights_only" in str(error).lower() or "Unsupported" in str(error):
            problem = "it holds more than tensors, and could run code; convert it to safetensors where you trust it"
        raise PretrainedError(f"{file}: cannot be read as weights: {problem}") from None
    if isinstance(content, dict):
        content = next((content[name] for name in WRAPPERS if isinstance(content.get(name), dict)), content)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise PretrainedError(f"{file}: no mapping of names to tensors")
    return content


def tensor(weights: Mapping[str, Tensor], name: str, where: str | Path) -> Tensor:
    """One tensor of a checkpoint."""
    if name not in weights:
        raise PretrainedError(f"{where}: not the weights of this model: it lacks {name}")
    return weights[name]


def sizes_of(weights: Mapping[str, Tensor], name: str, axes: int, where: str | Path) -> tuple[int, ...]:
    """The shape of one tensor of a checkpoint, which must have `axes` axes."""
    shape = tuple(tensor(weights, name, where).shape)
    if len(shape) != axes or not all(shape):
        raise PretrainedError(f"{where}: {name} has the shape {shape}, where {axes} axes are expected")
    return shape


def fit(module: torch.nn.Module, weights: Mapping[str, Tensor], where: str | Path) -> None:
    """Load every parameter and buffer of `module` from `weights` of the same names."""
    agree(module.state_dict(), weights, where)
    module.load_state_dict(dict(weights))


def agree(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], where: str | Path) -> None:
    """Check that `weights` have the names and shapes of `own`."""
    refuse_names(own.keys() - weights.keys(), weights.keys() - own.keys(), where)
    for name, value in own.items():
        if value.shape != weights[name].shape:
            raise PretrainedError(
                f"{where}: {name} has the shape {tuple(weights[name].shape)}, where this model has {tuple(value.shape)}"
            )


def refuse_names(missing: Iterable[str], unexpected: Iterable[str], where: str | Path) -> None:
    """Refuse a checkpoint with missing or unexpected tensors."""
    both = {"it lacks": sorted(missing), "it has also": sorted(unexpected)}
    problems = [f"{what} {', '.join(names[:3])}{', …' * (len(names) > 3)}" for what, names in both.items() if names]
    if problems:
        raise PretrainedError(f"{where}: not the weights of this model: {'; '.join(problems)}")
