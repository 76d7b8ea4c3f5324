"""classify: the mean over the valid steps of a bidirectional backbone, then a linear layer."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from zoo.blocks.heads.base import SequenceModel, make_head
from zoo.contract import Batch, Recipe, Role, Shape


class Classifier(SequenceModel):
    """One label per sequence, from the mean over its valid steps."""

    def __init__(self, recipe: Recipe, role: Role, shape: Shape) -> None:
        super().__init__(recipe, role, shape, vocab=shape.vocab, length=shape.length)
        self.head = make_head(recipe, shape.width, shape.outputs, bias=True)

    def pool(self, inputs: Tensor, mask: Bool[Tensor, "B T"] | None) -> Float[Tensor, "B D"]:
        y = self.encode(inputs, mask)
        if mask is None:
            return y.mean(1)
        weight = mask[..., None].to(y.dtype)
        return (y * weight).sum(1) / weight.sum(1).clamp(min=1)

    def forward(self, batch: Batch) -> Float[Tensor, "B C"]:
        return self.head(self.pool(batch.inputs, batch.mask))
