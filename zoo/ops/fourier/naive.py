"""y = Re F_T(F_D(x)) (Lee-Thorp et al. 2021, arXiv:2105.03824, eq. 3)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def fourier(x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """Re F_T(F_D(x)), without normalisation."""
    return torch.fft.fft2(x, dim=(1, 2)).real
