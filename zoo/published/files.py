"""Where published weights lie: on disk, or on the Hugging Face hub and then in its cache; and how they are read.

safetensors go before pickles, and a pickle is read for its tensors only (`weights_only`): opening a file runs no code.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zoo.published.errors import PretrainedError, missing

NAMES = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
"""Weights in a folder, the first of them that is there; an index of several files stands beside as NAME.index.json."""
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Under which of these a checkpoint of training keeps its weights; averaged ones go before."""


def find(where: str, patterns: Iterable[str] = ("*.json", "*.txt", "*.model", "*.safetensors")) -> Path:
    """The file or folder at a path; or of an id on the hub, from its cache, or else downloaded.

    Of a hub's repository only files of `patterns` come, and pickles where it has no safetensors. What is cached is
    taken as it is, without asking whether the hub has something newer.

    Raises:
        PretrainedError: there is nothing, huggingface-hub is not installed, or the hub cannot be reached.
    """
    path = Path(where).expanduser()
    if path.exists():
        return path
    parts = where.split("/")
    if len(parts) < 2 or where.startswith((".", "/", "~")) or "\\" in where:
        raise PretrainedError(f"{where}: there is no such file or folder")
    try:
        from huggingface_hub import hf_hub_download, snapshot_download
    except ImportError:
        raise missing("huggingface-hub", "hub", f"{where} is not a path here; to look for it on the hub") from None
    repository, file = "/".join(parts[:2]), "/".join(parts[2:])
    try:
        if file:
            return Path(hf_hub_download(repository, file))
        return _downloaded(snapshot_download, repository, tuple(patterns))
    except Exception as error:  # requests, httpx, the hub's own: what comes differs by version
        raise PretrainedError(_unreachable(where, error)) from None


def _downloaded(snapshot: Any, repository: str, patterns: tuple[str, ...]) -> Path:
    with contextlib.suppress(Exception):  # not cached: the library's own error, whose name differs by version
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
        return f"{where}: neither a path here nor on the hub ({kind})"
    if "Gated" in kind:
        return f"{where}: the hub asks you to accept its terms and log in (huggingface-cli login)"
    return f"{where}: not a path here, not in the hub's cache, and the hub cannot be reached ({kind})"


def config(path: Path) -> dict[str, Any] | None:
    """What `config.json` says, beside the weights or in the folder; None without one.

    Raises:
        PretrainedError: it is not JSON.
    """
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PretrainedError(f"{file}: not a readable config ({error})") from None
    if not isinstance(found, dict):
        raise PretrainedError(f"{file}: not a readable config (no mapping)")
    return found


def weights_in(path: Path) -> list[Path]:
    """The files that hold the weights at a path, safetensors before pickles.

    Raises:
        PretrainedError: there are none, or several of which none has a known name.
    """
    if path.is_file():
        return [path]
    for name in NAMES:
        index = path / f"{name}.index.json"
        if index.is_file():
            parts = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            for part in parts:
                if not (path / part).is_file():
                    raise PretrainedError(f"{path}: {index.name} names {part}, which is not there")
            return [path / part for part in parts]
        if (path / name).is_file():
            return [path / name]
    for suffix in SUFFIXES:
        found = sorted(path.glob(f"*{suffix}"))
        if len(found) == 1:
            return found
        if found:
            names = ", ".join(file.name for file in found[:4])
            raise PretrainedError(f"{path}: several files of weights ({names}, …); name one of them")
    raise PretrainedError(f"{path}: no weights here (looked for {', '.join(NAMES)} and *{', *'.join(SUFFIXES)})")


def read(path: Path) -> dict[str, Tensor]:
    """Every tensor at a path, on the CPU.

    Raises:
        PretrainedError: nothing to read, a damaged file, or a pickle that holds more than tensors.
    """
    found: dict[str, Tensor] = {}
    for file in weights_in(path):
        found |= _tensors(file)
    return found


def tensor_names(path: Path) -> set[str]:
    """The names of the tensors at a path, without reading safetensors' data; empty where there are none."""
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
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise PretrainedError(f"{file}: damaged or not safetensors ({error})") from None


def _tensors(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        with _opened(file) as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118  # not a dict
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # what many put the options of training into
            held = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the bytes make it stumble over
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "weights_only" in str(error).lower() or "Unsupported" in str(error):
            said = "it holds more than tensors, and could run code; convert it to safetensors where you trust it"
        raise PretrainedError(f"{file}: cannot be read as weights: {said}") from None
    if isinstance(held, dict):
        held = next((held[name] for name in WRAPPERS if isinstance(held.get(name), dict)), held)
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        raise PretrainedError(f"{file}: no mapping of names to tensors")
    return held


def held(weights: Mapping[str, Tensor], name: str, where: str | Path) -> Tensor:
    """One tensor of a checkpoint.

    Raises:
        PretrainedError: it is not there.
    """
    if name not in weights:
        raise PretrainedError(f"{where}: not the weights of this model: it lacks {name}")
    return weights[name]


def sizes_of(weights: Mapping[str, Tensor], name: str, axes: int, where: str | Path) -> tuple[int, ...]:
    """The shape of one tensor of a checkpoint.

    Raises:
        PretrainedError: it is not there, or has not so many axes.
    """
    shape = tuple(held(weights, name, where).shape)
    if len(shape) != axes or not all(shape):
        raise PretrainedError(f"{where}: {name} has the shape {shape}, where {axes} axes are expected")
    return shape


def fit(module: torch.nn.Module, weights: Mapping[str, Tensor], where: str | Path) -> None:
    """Load every parameter and buffer of `module` from `weights`, by its names.

    Raises:
        PretrainedError: as `agree`.
    """
    agree(module.state_dict(), weights, where)
    module.load_state_dict(dict(weights))


def agree(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], where: str | Path) -> None:
    """Check that `weights` have the names and shapes of `own`.

    Raises:
        PretrainedError: a name is missing or too many, or a shape is another; the message names the first ones.
    """
    lacking, more = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if lacking or more:
        told = [f"{what} {', '.join(names[:3])}{', …' * (len(names) > 3)}" for what, names in
                (("it lacks", lacking), ("it has also", more)) if names]  # fmt: skip
        raise PretrainedError(f"{where}: not the weights of this model: {'; '.join(told)}")
    for name, value in own.items():
        if value.shape != weights[name].shape:
            raise PretrainedError(
                f"{where}: {name} has the shape {tuple(weights[name].shape)}, where this model has {tuple(value.shape)}"
            )
