"""Position encodings, usable with any architecture that does not see the order of its inputs otherwise.

`at_input.py` has those that join the embedding: modules from (x, positions) to x. `in_attention.py` has those that act
on queries, keys or scores; a mixer that can apply them (`Mixer.relative`) makes one with `relative`.
"""

from typing import Literal

from zoo.layers.positions.at_input import ABSOLUTE, Absolute
from zoo.layers.positions.in_attention import RELATIVE, Relative
from zoo.options import make
from zoo.registry import Table
from zoo.types import LayerContext, Part

POSITIONS = Table("position encoding", {**ABSOLUTE, **RELATIVE})


def part(positions: Part | str) -> Part:
    """A Recipe's positions as a Part."""
    return positions if isinstance(positions, Part) else Part(positions)


def acts(positions: Part | str) -> Literal["rotation", "bias"] | None:
    """How an encoding acts inside attention; None for one that joins the embedding.

    Raises:
        ValueError: unknown.
    """
    kind = POSITIONS.resolve(part(positions).kind)
    return kind.acts if issubclass(kind, Relative) else None


def absolute(positions: Part | str, context: LayerContext) -> Absolute:
    """The module that joins the embedding; one that does nothing for a relative encoding.

    Raises:
        ValueError: unknown, or an option that cannot be.
    """
    made: Absolute = make(POSITIONS, part("none" if acts(positions) else positions), context)
    return made


def relative(positions: Part | None, *, heads: int, head_width: int, causal: bool) -> Relative:
    """The module that acts inside attention; one that does nothing where there is none.

    Raises:
        ValueError: an option that cannot be, such as rotations of an odd head width.
    """
    if positions is None:
        return Relative(heads, head_width, causal=causal)
    made: Relative = make(POSITIONS, positions, heads, head_width, causal=causal)
    return made
