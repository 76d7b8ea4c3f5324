"""The same tensors under our names and under those of a published checkpoint, mapped in both directions."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Size, Tensor

from zoo.contract import Model
from zoo.published.files import tensor


@dataclass(frozen=True, slots=True)
class Pair:
    """One of our tensors and its counterpart: several of theirs are stacked along our first axis."""

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False
    """Whether theirs is (in, out), as in GPT-2, where ours is (out, in)."""


def renamed(model: Model, table: Mapping[str, str], *, sublayers: int = 2) -> dict[str, str]:
    """Our names of a model's tensors, and theirs by a table of prefixes; a prefix that it lacks stays.

    A block has `sublayers`, whose names begin with `0.` and `1.` in our prefixes; `{}` in theirs is its number.
    """
    names = {}
    for name in model.state_dict():
        block, key = 0, name
        if match := re.fullmatch(r"backbone\.sublayers\.(\d+)\.(.+)", name):
            block, sublayer = divmod(int(match[1]), sublayers)
            key = f"{sublayer}.{match[2]}"
        prefix = next((prefix for prefix in table if f"{key}.".startswith(f"{prefix}.")), "")
        names[name] = table.get(prefix, "").format(block) + key[len(prefix) :]
    return names


def to_ours(pairs: Iterable[Pair], theirs: Mapping[str, Tensor], where: str | Path) -> dict[str, Tensor]:
    """Their weights under our names; a PretrainedError names one that is missing."""
    weights = {}
    for pair in pairs:
        parts = [tensor(theirs, name, where) for name in pair.theirs]
        parts = [part.T for part in parts] if pair.transposed else parts
        weights[pair.ours] = parts[0] if len(parts) == 1 else torch.cat(parts)
    return weights


def to_theirs(pairs: Iterable[Pair], ours: Mapping[str, Tensor], shapes: Mapping[str, Size]) -> dict[str, Tensor]:
    """Our weights under their names, in their `shapes` (which say where to cut a stack)."""
    weights = {}
    for pair in pairs:
        heights = [shapes[name][-1 if pair.transposed else 0] for name in pair.theirs]
        parts = [ours[pair.ours]] if len(heights) == 1 else ours[pair.ours].split(heights)
        for name, part in zip(pair.theirs, parts, strict=True):
            weights[name] = (part.T if pair.transposed else part).reshape(shapes[name]).contiguous()
    return weights
