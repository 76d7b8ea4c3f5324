"""A forget gate that is never below a bound of its layer (Qin et al. 2023, arXiv:2311.04823, section 3; HGRN).

    b_l = Σ_{0 < j ≤ l} softmax_j(γ),    f = b_l + (1 − b_l) σ(x)

The softmax is over layers, for each channel by itself: upper layers forget more slowly, the lowest has no bound.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.layers.tensors import in_fp32


@in_fp32
def forget_gate(
    x: Float[Tensor, "*N D"], gamma: Float[Tensor, "depth D"] | None, layer: int
) -> tuple[Float[Tensor, "*N D"], Float[Tensor, "*N D"]]:
    """ln f and 1 − f, each to its last digits; without `gamma`, as in layer 0, of f = σ(x)."""
    if gamma is None:
        return F.logsigmoid(x), torch.sigmoid(-x)
    log_p = gamma.log_softmax(0)
    log_bound, above = log_p[1 : layer + 1].logsumexp(0), torch.cat([log_p[:1], log_p[layer + 1 :]])
    log_rest = above.logsumexp(0)  # ln (1 − b), which a bound close to 1 would leave no digits of
    return torch.logaddexp(log_bound, log_rest + F.logsigmoid(x)), log_rest.exp() * torch.sigmoid(-x)
