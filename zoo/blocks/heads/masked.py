"""masked: logits for the token at every step, from a bidirectional backbone."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from zoo.blocks.heads.base import SequenceModel, make_head
from zoo.contract import Batch, Recipe, Role, Shape, Unsupported


class MaskedLanguageModel(SequenceModel):
    """Logits for the token at every step, of which some are hidden in the inputs; looks both ways."""

    def __init__(self, recipe: Recipe, role: Role, shape: Shape) -> None:
        if shape.vocab is None:
            raise Unsupported("a masked language model reads tokens; this task gives vectors")
        super().__init__(recipe, role, shape, vocab=shape.vocab, length=shape.length)
        self.head = make_head(recipe, shape.width, shape.outputs, bias=False)

    def forward(self, batch: Batch) -> Float[Tensor, "B T V"]:
        return self.head(self.encode(batch.inputs, batch.mask))
