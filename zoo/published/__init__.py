"""Published weights behind the same `Model`: ours, RWKV's, Mamba's, transformers' and timm's. `load` opens any of them.

    zoo           a folder that `save` wrote: zoo.json, model.safetensors
    rwkv          RWKV-4, 5.2, 6, 7: official `.pth` files, into our modules or through the package `rwkv`
    mamba         Mamba and Mamba-2, in the format of mamba-ssm or of transformers, into our modules
    transformers  any causal language model of transformers, run by transformers
    timm          any image model of timm, run by timm: `timm/NAME`
    typeseg       the trained segmenter in the wheel typeseg, a Mamba that reads both ways: `typeseg`, or its `.npz`

Each kind is a module with `load(where, **options) -> Model`. `where` is a path, or an id on the Hugging Face hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.published.errors import PretrainedError
from zoo.registry import Table, nearest, options_of

if TYPE_CHECKING:
    from zoo.contract import Model

__all__ = ["KINDS", "PretrainedError", "kind_of", "load", "save"]

KINDS = Table(
    "kind of checkpoint",
    {
        "zoo": "zoo.published.folder:load",
        "rwkv": "zoo.published.rwkv:load",
        "mamba": "zoo.published.mamba:load",
        "transformers": "zoo.published.causal_lm:load",
        "timm": "zoo.published.timm_models:load",
        "typeseg": "zoo.published.typeseg:load",
    },
)


def load(where: str | Path, *, kind: str | None = None, **options: Any) -> Model:
    """A model with its published weights, in eval mode; `model.tokenizer` turns text into its tokens, where it has one.

    Args:
        where: a path, `timm/NAME`, or an id on the hub (`org/name`, or `org/name/file.pth`); `KIND:…` says its kind.
        kind: one of `KINDS`; by default what the files say. options: those of the kind's own `load`.

    Raises:
        PretrainedError: nothing there, no such kind, a package that is missing, or weights of another shape.
    """
    name = str(where)
    first, colon, rest = name.partition(":")
    if kind is None and colon and first in KINDS:
        kind, name = first, rest
    if kind is None:
        kind = kind_of(name)
    try:
        opener = KINDS.resolve(kind)
    except ValueError as error:
        raise PretrainedError(str(error)) from None
    known = [option.name for option in options_of(opener, skip=1)]
    for option in options:
        if option not in known:
            raise PretrainedError(f"{name}: kind {kind} has no option {option!r}{nearest(option, known)}")
    model: Model = opener(name, **options)
    return model.eval()


def save(model: Model, folder: str | Path, *, made: dict[str, Any] | None = None) -> Path:
    """Write a model of the zoo to a folder that `load` opens: see `zoo.published.folder`."""
    from zoo.published.folder import save as write

    return write(model, folder, made=made)


def kind_of(where: str) -> str:
    """The kind of what lies at a path or on the hub, by its name and its files.

    Raises:
        PretrainedError: nothing is there, or nothing that is known.
    """
    from zoo.published import files

    if where.startswith(("timm/", "local-dir:")):
        return "timm"
    if where == "typeseg" or where.endswith(".npz"):
        return "typeseg"
    path = files.find(where)
    if path.is_dir() and ((path / "zoo.json").is_file() or (path / "model" / "zoo.json").is_file()):
        return "zoo"
    config = files.config(path)
    if config is not None:
        family = str(config.get("model_type", ""))
        if family in ("mamba", "mamba2") or "ssm_cfg" in config:
            return "mamba"
        if family:
            return "transformers"
        if "architecture" in config and ("pretrained_cfg" in config or "num_classes" in config):
            return "timm"
    names = files.tensor_names(path)
    if "emb.weight" in names and any(name.startswith("blocks.0.att.") for name in names):
        return "rwkv"
    if any(name.startswith("backbone.layers.0.mixer.") for name in names):
        return "mamba"
    raise PretrainedError(f"{where}: cannot tell what this is; say so with kind=, one of {', '.join(KINDS)}")
