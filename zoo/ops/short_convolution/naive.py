"""The short causal convolution as the equation reads."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.ops.norms.naive import unit as unit_vectors


class Unit(NamedTuple):
    """The channels of a step are heads of equal width, each made a vector of the length in `scales` by `norms.unit`, or
    left as it is where that is 0.
    """

    scales: tuple[float, ...]

    def normed(self, y: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """The heads of y as vectors of these lengths."""
        heads = y.unflatten(-1, (len(self.scales), -1)).unbind(-2)
        made = [unit_vectors(head, scale) if scale else head for head, scale in zip(heads, self.scales, strict=True)]
        return torch.cat(made, dim=-1)


def short_convolution(
    x: Float[Tensor, "B T D"],
    w: Float[Tensor, "D W"],
    bias: Float[Tensor, " D"] | None = None,
    before: Float[Tensor, "B W-1 D"] | None = None,
    mask: Bool[Tensor, "B T"] | None = None,
    *,
    silu: bool = False,
    unit: Unit | None = None,
    narrow: bool = False,
) -> Float[Tensor, "B T D"]:
    """y_t = act(bias + Σ_{j<W} w_j ⊙ x_{t−W+1+j}), with `before`, or zeros, before the first step; padding is zeros.

    `unit` norms what is activated; if `narrow`, y is rounded to the dtype of x.
    """
    W = w.shape[1]
    dtype, x = x.dtype, x if mask is None else x.masked_fill(~mask[..., None], 0)
    line = torch.cat([x.new_zeros(len(x), W - 1, x.shape[2]) if before is None else before, x], dim=1)
    y = torch.stack([torch.einsum("dn,bnd->bd", w, line[:, t : t + W]) for t in range(x.shape[1])], dim=1)
    y = y if bias is None else y + bias
    y = F.silu(y) if silu else y
    y = y if unit is None else unit.normed(y)
    return y.to(dtype) if narrow else y
