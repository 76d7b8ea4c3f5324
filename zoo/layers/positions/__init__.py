"""Position encodings, usable with any architecture that leaves the order of its inputs open.

`at_input.py` has those that join the embedding: modules from (x, positions) to x. `in_attention.py` has those that act
on queries, keys or scores: a mixer that offers itself to them (`Mixer.relative`) makes one with `relative`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from zoo.options import make
from zoo.registry import Table
from zoo.types import LayerContext, Part

if TYPE_CHECKING:
    from zoo.layers.positions.at_input import Absolute
    from zoo.layers.positions.in_attention import Relative

POSITIONS = Table(
    "position encoding",
    {
        "none": "zoo.layers.positions.at_input:NoPositions",
        "learned": "zoo.layers.positions.at_input:Learned",
        "sinusoidal": "zoo.layers.positions.at_input:Sinusoidal",
        "scalar": "zoo.layers.positions.at_input:Scalar",
        "concatenated": "zoo.layers.positions.at_input:Concatenated",
        "randomised": "zoo.layers.positions.at_input:Randomised",
        "rope": "zoo.layers.positions.in_attention:RoPE",
        "xpos": "zoo.layers.positions.in_attention:XPos",
        "alibi": "zoo.layers.positions.in_attention:ALiBi",
        "t5": "zoo.layers.positions.in_attention:T5Bias",
    },
)


def part(positions: Part | str) -> Part:
    """A Recipe's positions as a Part."""
    return positions if isinstance(positions, Part) else Part(positions)


def acts(positions: Part | str) -> Literal["rotation", "bias"] | None:
    """How an encoding acts inside attention; None for one that joins the embedding.

    Raises:
        ValueError: unknown.
    """
    from zoo.layers.positions.in_attention import Relative

    kind = POSITIONS.resolve(part(positions).kind)
    return kind.acts if issubclass(kind, Relative) else None


def absolute(positions: Part | str, context: LayerContext) -> Absolute:
    """The module that joins the embedding; one that does nothing for a relative encoding.

    Raises:
        ValueError: unknown, or an option that cannot be.
    """
    if acts(positions) is not None:
        positions = "none"
    chosen = part(positions)
    made: Absolute = make(POSITIONS, chosen, context)
    return made


def relative(positions: Part | None, *, heads: int, head_width: int, causal: bool) -> Relative:
    """The module that acts inside attention; one that does nothing where there is none.

    Raises:
        ValueError: an option that cannot be, such as rotations of an odd head width.
    """
    from zoo.layers.positions.in_attention import Relative

    if positions is None:
        return Relative(heads, head_width, causal=causal)
    made: Relative = make(POSITIONS, positions, heads, head_width, causal=causal)
    return made
