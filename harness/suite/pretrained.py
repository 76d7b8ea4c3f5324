"""What stands in a suite for published weights: `pretrained: {KIND: WHERE, OPTION: VALUE}`."""

from pathlib import Path
from typing import Any

from harness.records.spec import PRETRAINED
from zoo.registry import nearest

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".npz")


def kind_and_where(options: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """The kind of checkpoint, where it lies, and the kind's options; a ValueError where not one kind is named."""
    from zoo.published import KINDS

    kinds = [name for name in options if name in KINDS]
    if len(kinds) != 1:
        known = ", ".join(KINDS)
        unknown = next((name for name in options if name not in KINDS), "")
        near = nearest(unknown, KINDS) if unknown and not kinds else ""
        raise ValueError(f"name one kind of checkpoint, such as {{timm: mixer_b16_224}}; known: {known}{near}")
    rest = {name: value for name, value in options.items() if name != kinds[0]}
    if not isinstance(options[kinds[0]], str):
        raise ValueError(f"{kinds[0]} must be a path or a name, got {options[kinds[0]]!r}")
    return kinds[0], options[kinds[0]], rest


def label(options: dict[str, Any]) -> str:
    """The name of a row that has none: the last part of where its weights lie, without the suffix of a file."""
    try:
        _, where, _ = kind_and_where(options)
    except ValueError:
        return PRETRAINED
    name = Path(where).name
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name) or PRETRAINED
