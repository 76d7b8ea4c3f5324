"""What mixers of several heads share: how wide a head is, and the positions that act inside it."""

from zoo.contract import LayerContext, Mixer, Unsupported
from zoo.layers.positions import relative
from zoo.layers.ranges import head_width


class MultiHead(Mixer):
    """Base of the mixers with `heads`, `head_width` features wide, whose queries and keys `positions` act on.

    Args:
        name: the mixer's, for errors. width: of a head, given by its `option`; None for that of the layer over heads.
    """

    def __init__(
        self, context: LayerContext, name: str, heads: int, width: int | None = None, option: str = "head_dim"
    ) -> None:
        super().__init__(context)
        self.heads, self.causal, self.gain = heads, context.causal, context.gain
        self.head_width = d = head_width(name, context.width, heads, width, option)
        try:
            self.positions = relative(context.positions, heads=heads, head_width=d, causal=context.causal)
        except Unsupported:
            raise
        except ValueError as error:
            raise ValueError(f"{name}: {option} is {d}, but {error}") from None
