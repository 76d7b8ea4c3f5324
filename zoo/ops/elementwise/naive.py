"""Element by element.

swiglu       y = SiLU(g) ⊙ u,  SiLU(g) = g σ(g)        (Shazeer 2020, arXiv:2002.05202, eq. 6)
positive     φ(x) = elu(x) + 1                         (Katharopoulos et al. 2020, arXiv:2006.16236, section 3.2.1)
log_sigmoid  y = c ln σ(x)                             (Yang et al. 2024, arXiv:2312.06635, section 4.4)
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops.precision import at_least_fp32


def swiglu(g: Float[Tensor, "*N F"], u: Float[Tensor, "*N F"]) -> Float[Tensor, "*N F"]:
    """SiLU(g) ⊙ u."""
    return F.silu(g) * u


def positive(x: Float[Tensor, "*N F"]) -> Float[Tensor, "*N F"]:
    """elu(x) + 1 as max(x, 0) + e^{min(x, 0)}, which keeps its digits near 0; in x's dtype."""
    z = at_least_fp32(x)
    return (z.clamp(min=0) + z.clamp(max=0).exp()).to(x.dtype)


def log_sigmoid(x: Float[Tensor, "*N F"], scale: float = 1.0) -> Float[Tensor, "*N F"]:
    """scale · ln σ(x)."""
    return F.logsigmoid(at_least_fp32(x)) * scale
