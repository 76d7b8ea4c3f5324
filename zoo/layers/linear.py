"""A linear layer whose bias is added inside the product."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from zoo.ops.linear import linear


class Linear(nn.Linear):
    """y = x Wᵀ + b in one pass, where torch takes two; see `zoo.ops.linear`."""

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N F"]:
        return linear(x, self.weight, self.bias)
