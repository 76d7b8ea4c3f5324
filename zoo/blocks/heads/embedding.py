"""The first layer of every model: tokens or vectors, with their positions."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from zoo.contract import LayerContext, Recipe
from zoo.inputs import check_tokens
from zoo.layers.linear import table_
from zoo.layers.norms import make_norm
from zoo.layers.positions import absolute

EMBEDDINGS = ("normal", "scaled", "unit", "normed", "rwkv4", "rwkv5")


class Embedding(nn.Module):
    """A table for tokens or a linear layer for vectors, then positions and dropout.

    The table starts by `Recipe.embedding`:
        normal: N(0, 1/D). scaled: the same, and inputs are multiplied by √D. unit: N(0, 1), where no norm follows.
        normed: N(0, 1/D), and the Recipe's norm.
        rwkv4: orthogonal with gain 1e-4·√max(V, D), and a LayerNorm. rwkv5: uniform within ±1e-4, and a LayerNorm.
    """

    def __init__(self, recipe: Recipe, context: LayerContext, *, vocab: int | None, features: int | None) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab, context.width) if vocab else nn.Linear(features or 1, context.width)
        if recipe.embedding not in EMBEDDINGS:
            raise ValueError(f"unknown embedding {recipe.embedding!r}; known: {', '.join(EMBEDDINGS)}")
        self.scale = context.width**0.5 if recipe.embedding == "scaled" and vocab else 1.0
        rwkv = recipe.embedding in ("rwkv4", "rwkv5")
        normed = recipe.embedding == "normed"
        self.norm = nn.LayerNorm(context.width) if rwkv else make_norm(recipe.norm if normed else "none", context.width)
        self.positions = absolute(recipe.positions, context)
        self.dropout = nn.Dropout(recipe.dropout)
        if isinstance(self.table, nn.Embedding):
            if recipe.embedding == "rwkv5":
                nn.init.uniform_(self.table.weight, -1e-4, 1e-4)
            elif rwkv:
                nn.init.orthogonal_(self.table.weight, gain=1e-4 * max(self.table.weight.shape) ** 0.5)
            elif recipe.embedding in ("normal", "scaled", "normed"):
                table_(self.table.weight)

    def forward(self, inputs: Tensor, offset: Int[Tensor, "#B"]) -> Float[Tensor, "B T D"]:
        positions = offset[:, None] + torch.arange(inputs.shape[1], device=inputs.device)
        try:
            x = self.norm(self.table(inputs))
        except IndexError:  # on a CPU; on a GPU, CUDA's own assertion ends the process
            check_tokens(inputs, self.table.weight.shape[0], name="inputs")
            raise
        if self.scale != 1.0:
            x = x * self.scale
        return self.dropout(self.positions(x, positions))
