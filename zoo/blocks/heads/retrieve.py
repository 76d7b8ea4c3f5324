"""retrieve: two documents through one encoder, a and b, then an MLP of [a, b, a⊙b, a−b] (LRA's document matching)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.blocks.heads.classify import Classifier
from zoo.contract import Batch, Recipe, Role, Shape


class Retriever(Classifier):
    """Whether two documents belong together: one encoder for both, then an MLP of their difference and product."""

    def __init__(self, recipe: Recipe, role: Role, shape: Shape) -> None:
        super().__init__(recipe, role, shape)
        D = shape.width
        self.compare = nn.Sequential(nn.Linear(4 * D, D), nn.ReLU())

    def forward(self, batch: Batch) -> Float[Tensor, "B C"]:
        a, b = self.pool(batch.inputs, batch.mask), self.pool(batch.inputs2, batch.mask2)
        return self.head(self.compare(torch.cat([a, b, a * b, a - b], dim=-1)))
