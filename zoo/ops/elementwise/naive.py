"""Element by element.

swiglu  y = SiLU(g) ⊙ u,  SiLU(g) = g σ(g)                       (Shazeer 2020, arXiv:2002.05202, eq. 6)
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def swiglu(g: Float[Tensor, "*N F"], u: Float[Tensor, "*N F"]) -> Float[Tensor, "*N F"]:
    """SiLU(g) ⊙ u."""
    return F.silu(g) * u
