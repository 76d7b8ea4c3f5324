"""The same weights under two sets of names: ours, and those of a published checkpoint. Read both ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Size, Tensor

from zoo.published.files import held


@dataclass(frozen=True, slots=True)
class Same:
    """One tensor of ours, and what it is called elsewhere: several of theirs are stacked along the first axis."""

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False
    """Whether theirs is (in, out), as in GPT-2, where ours is (out, in)."""

    def __init__(self, ours: str, *theirs: str, transposed: bool = False) -> None:
        object.__setattr__(self, "ours", ours)
        object.__setattr__(self, "theirs", theirs)
        object.__setattr__(self, "transposed", transposed)


def to_ours(pairs: Iterable[Same], theirs: Mapping[str, Tensor], where: str | Path) -> dict[str, Tensor]:
    """Their weights under our names.

    Raises:
        PretrainedError: a name is missing.
    """
    found = {}
    for pair in pairs:
        parts = [held(theirs, name, where) for name in pair.theirs]
        parts = [part.T for part in parts] if pair.transposed else parts
        found[pair.ours] = parts[0] if len(parts) == 1 else torch.cat(parts)
    return found


def to_theirs(pairs: Iterable[Same], ours: Mapping[str, Tensor], shapes: Mapping[str, Size]) -> dict[str, Tensor]:
    """Our weights under their names, in their `shapes` (which say how a stack is cut)."""
    found = {}
    for pair in pairs:
        value = ours[pair.ours]
        heights = [shapes[name][-1 if pair.transposed else 0] for name in pair.theirs]
        parts = [value] if len(heights) == 1 else list(value.split(heights))
        for name, part in zip(pair.theirs, parts, strict=True):
            found[name] = (part.T if pair.transposed else part).reshape(shapes[name]).contiguous()
    return found
