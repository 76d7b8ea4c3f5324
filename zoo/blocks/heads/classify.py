"""classify and retrieve: the mean over the valid steps of a bidirectional backbone, then a linear layer.

retrieve (LRA's document matching) reads two documents by one encoder, a and b, and first an MLP of [a, b, a⊙b, a−b].
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.blocks.heads.base import SequenceModel, make_head
from zoo.contract import Batch, Mask, Recipe, Role, Shape
from zoo.inputs import check_inputs


class Classifier(SequenceModel):
    """One label per sequence, from the mean over its valid steps."""

    def __init__(self, recipe: Recipe, role: Role, shape: Shape) -> None:
        super().__init__(recipe, role, shape, vocab=shape.vocab, length=shape.length)
        self.head = make_head(recipe, shape.width, shape.outputs, bias=True)

    def pool(self, inputs: Tensor, mask: Mask | None) -> Float[Tensor, "B D"]:
        y = self.encode(inputs, mask)
        if mask is None:
            return y.mean(1)
        weight = mask[..., None].to(y.dtype)
        return (y * weight).sum(1) / weight.sum(1).clamp(min=1)

    def forward(self, batch: Batch) -> Float[Tensor, "B C"]:
        return self.head(self.pool(batch.inputs, batch.mask))


class Retriever(Classifier):
    """Whether two documents belong together."""

    def __init__(self, recipe: Recipe, role: Role, shape: Shape) -> None:
        super().__init__(recipe, role, shape)
        D = shape.width
        self.compare = nn.Sequential(nn.Linear(4 * D, D), nn.ReLU())

    def forward(self, batch: Batch) -> Float[Tensor, "B C"]:
        check_inputs(batch.inputs2, batch.mask2, features=self.shape.features, name="inputs2")
        if len(batch.inputs) != len(batch.inputs2):
            raise ValueError(f"inputs2: {len(batch.inputs2)} rows beside {len(batch.inputs)} of inputs")
        a, b = self.pool(batch.inputs, batch.mask), self.pool(batch.inputs2, batch.mask2)
        return self.head(self.compare(torch.cat([a, b, a * b, a - b], dim=-1)))
