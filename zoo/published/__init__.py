"""Published weights behind our `Model`: `load` opens them, `export` writes models of the zoo.

    zoo           a folder that `zoo.save` wrote: zoo.json, model.safetensors
    rwkv          RWKV-4, 5.2, 6, 7: official `.pth` files and rwkv.cpp's safetensors
    mamba         Mamba and Mamba-2, in the formats of mamba-ssm and transformers
    transformers  any causal language model of transformers, run by transformers
    timm          any image model of timm, run by timm: `timm/NAME`
    typeseg       the trained segmenter in the package typeseg, a bidirectional Mamba: `typeseg`

Each kind is a module with `load(where, **options) -> Model`, where `where` is a path, or `hf:` and an id on the Hugging
Face hub.
What is missing, damaged or does not fit raises a `PretrainedError` of one line, everywhere in this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.options import check
from zoo.published.errors import PretrainedError
from zoo.registry import Table, options_of

if TYPE_CHECKING:
    from zoo.contract import Model

__all__ = ["KINDS", "Format", "PretrainedError", "export", "kind_of", "load", "option_names"]

KINDS = Table(
    "kind of checkpoint",
    {
        "zoo": "zoo.published.ours:load",
        "rwkv": "zoo.published.rwkv:load",
        "mamba": "zoo.published.mamba:load",
        "transformers": "zoo.published.transformers.model:load",
        "timm": "zoo.published.timm:load",
        "typeseg": "zoo.published.typeseg:load",
    },
)
Format = Literal["zoo", "transformers", "rwkv"]


def load(where: str | Path, *, kind: str | None = None, **options: Any) -> Model:
    """Open a model with its published weights, in eval mode. `model.tokenizer` reads and writes text, if it has one.

    Args:
        where: a path, `timm/NAME`, or an id on the hub (`hf:org/name`, `hf:org/name/file.pth`); also as `KIND:…`.
        kind: one of `KINDS`; by default it is recognised by the files.
        options: those of the kind's own `load`.

    Raises:
        PretrainedError: nothing there, no such kind or option, a missing package, or weights that do not fit.
    """
    name = str(where)
    first, colon, rest = name.partition(":")
    if kind is None and colon and first in KINDS:
        kind, name = first, rest
    if kind is None:
        kind = kind_of(name)
    try:
        opener = KINDS.resolve(kind)
        check(f"{name}: kind {kind}", options_of(opener, skip=1), options)
    except (TypeError, ValueError) as error:
        raise PretrainedError(str(error)) from None
    model: Model = opener(name, **options)
    return model.eval()


def option_names() -> list[str]:
    """Every option that `load` takes for some kind, and `kind` itself."""
    names = {option.name for kind in KINDS for option in options_of(KINDS.resolve(kind), skip=1)}
    return sorted({"kind", *names})


def export(model: Model, folder: str | Path, format: Format) -> Path:
    """Write a model to a folder for `load` (`zoo`), for transformers, or as RWKV's official `model.pth` (`rwkv`).

    Raises:
        PretrainedError: the format has no such model or option, or the folder cannot be written.
    """
    if format == "rwkv":
        from zoo.published import rwkv

        return rwkv.save(model, Path(folder) / "model.pth").parent
    if format == "transformers":
        from zoo.published.transformers.export import save
    else:
        from zoo.published.ours import save
    return save(model, folder)


def kind_of(where: str) -> str:
    """The kind of checkpoint at a path or on the hub, recognised by its name and its files.

    Raises:
        PretrainedError: nothing is there, or nothing known.
    """
    from zoo.published import files

    if where.removeprefix("hf:").startswith(("timm/", "local-dir:")):
        return "timm"
    if where == "typeseg":
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
