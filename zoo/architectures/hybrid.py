"""Hybrids: stacks whose layers follow a pattern.

    x ← x + f_i(LN(x)),    x ← x + g_i(LN(x)),    i = l mod p in block l

for a pattern of p mixers f and channel mixers g.
"""

import math
from typing import Any

from zoo.architectures import names, recipe, register
from zoo.layers import MIXERS
from zoo.registry import nearest
from zoo.types import Part, Recipe


@register(
    family="hybrids",
    paper="no one paper: any stack whose layers follow a pattern",
    source="the layers are those of the architectures named",
)
def hybrid(*, pattern: tuple[str | dict[str, Any], ...] = ("mamba", "mamba", "attention")) -> Recipe:
    """Blocks that follow a pattern, repeated over the depth: `hybrid: {pattern: [mamba, mamba, attention]}`.

    An entry names an architecture, whose mixer and channel mixer it takes, or a mixer, which gets an MLP. Options go
    with the name: `{mamba: {d_state: 8}}`. All stand in Pre-LN. The default depth is a whole number of patterns.
    """
    if not isinstance(pattern, (list, tuple)) or not pattern:
        raise ValueError("hybrid: `pattern` is a list of architectures or mixers, such as [mamba, mamba, attention]")
    parts = [_parts(entry) for entry in pattern]
    return Recipe(
        mixer=tuple(mixer for mixer, _ in parts),
        channel=tuple(channel for _, channel in parts),
        residual="pre",
        depth=len(parts) * math.ceil(4 / len(parts)),
    )


def _parts(entry: str | dict[str, Any]) -> tuple[Part, Part | None]:
    """The mixer and the channel mixer that an entry of a pattern asks for."""
    if isinstance(entry, dict) and len(entry) != 1:
        raise ValueError("hybrid: an entry of `pattern` is a name, or one name with its options")
    name, options = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
    if options is not None and not isinstance(options, dict):
        raise ValueError(f"hybrid: `pattern` has {options!r} for the options of {name}; write {{{name}: {{…}}}}")
    known = sorted({*names(), *MIXERS} - {"hybrid", "cross_attention"})
    if name not in known:
        raise ValueError(f"hybrid: `pattern` names {name!r}, no architecture or mixer{nearest(str(name), known)}")
    if name not in names():
        return Part(MIXERS.resolve(name), **(options or {})), Part("mlp")
    try:
        own = recipe(name, **(options or {}))
    except (TypeError, ValueError) as error:
        raise ValueError(f"hybrid: `pattern`: {error}") from None
    if len(own.mixers) > 1:
        raise ValueError(f"hybrid: {name} is a pattern of its own; name its parts instead")
    return own.mixers[0], own.channels[0]
