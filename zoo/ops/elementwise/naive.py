"""φ(x) = elu(x) + 1 (Katharopoulos et al. 2020, arXiv:2006.16236, section 3.2.1)."""

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.ops.precision import at_least_fp32


def positive(x: Float[Tensor, "*N F"]) -> Float[Tensor, "*N F"]:
    """elu(x) + 1 as max(x, 0) + e^{min(x, 0)}, which keeps its digits near 0; in x's dtype."""
    z = at_least_fp32(x)
    zero = z.new_zeros(())
    # Unlike `clamp`, of which both parts have slope 1 at 0, these share the slope of 1 there, and keep a slope of NaN.
    return (torch.maximum(z, zero) + torch.minimum(z, zero).exp()).to(x.dtype)
