"""Hybrids: stacks whose layers are not all of one kind."""

import math
from typing import Any

from zoo.architectures import get, register
from zoo.mixers import MIXERS
from zoo.registry import nearest
from zoo.types import Part, Recipe


@register(
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
    blocks = [_block(entry) for entry in pattern]
    return Recipe(
        mixer=tuple(mixer for mixer, _, _ in blocks),
        channel=tuple(channel for _, channel, _ in blocks),
        residual="pre",
        depth=len(blocks) * math.ceil(4 / len(blocks)),
        width_multiple=math.lcm(*(multiple for _, _, multiple in blocks)),
    )


def _block(entry: str | dict[str, Any]) -> tuple[Part, Part | None, int]:
    """Mixer, channel mixer and the multiple that widths must keep, of one entry of a pattern."""
    from zoo.architectures import names, recipe

    if isinstance(entry, dict) and len(entry) != 1:
        raise ValueError("hybrid: an entry of `pattern` is a name, or one name with its options")
    name, options = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
    if options is not None and not isinstance(options, dict):
        raise ValueError(f"hybrid: `pattern` has {options!r} for the options of {name}; write {{{name}: {{…}}}}")
    known = sorted({*names(), *MIXERS} - {"hybrid", "cross_attention"})
    if name not in known:
        raise ValueError(f"hybrid: `pattern` names {name!r}, no architecture or mixer{nearest(str(name), known)}")
    if name in names():
        try:
            own = recipe(name, **(options or {}))
        except (TypeError, ValueError) as error:
            raise ValueError(f"hybrid: `pattern`: {error}") from None
        if len(own.mixers) > 1:
            raise ValueError(f"hybrid: {name} is a pattern of its own; name its parts instead")
        return own.mixers[0], own.channels[0], own.width_multiple
    heads = (options or {}).get("heads", 4) if name == "attention" else 1
    return Part(name, **(options or {})), Part("mlp"), heads if isinstance(heads, int) and heads > 0 else 1


@register(
    paper="Fu et al. 2022, Hungry Hungry Hippos: Towards Language Modeling with State Space Models, arXiv:2212.14052",
    source="https://github.com/HazyResearch/H3 (src/models/ssm_seq.py, attn_layer_idx)",
    deviations=(
        "the paper has two attention layers in 12 or more, the second and the one in the middle; here one in four is "
        "attention, so that a stack of four has the second",
        "no positions at all, as in the official hybrid; initialisation of the attention layers is pre_ln's",
    ),
)
def h3_attention(*, heads: int = 4, d_state: int = 64) -> Recipe:
    """H3 with attention in one layer of four."""
    h3 = get("h3").make(d_state=d_state)
    attention = Part("attention", heads=heads)
    return h3.replace(
        mixer=(h3.mixers[0], attention, h3.mixers[0], h3.mixers[0]),
        channel=h3.channels[0],
        width_multiple=math.lcm(h3.width_multiple, heads),
    )
