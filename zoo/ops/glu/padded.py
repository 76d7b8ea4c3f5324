"""Gated linear units with hidden units that are always zero, up to a multiple of 16.

MKL's float32 product writes rows of 8/3 · 256 numbers at two thirds of the speed of rows of whole vectors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from zoo.ops.glu.naive import Affine, gated
from zoo.ops.glu.naive import glu as by_equation
from zoo.ops.kernel_log import log_kernel

MULTIPLE = 16


def glu(
    x: Float[Tensor, "B T D"], gate: Affine, up: Affine, down: Affine, activation: Callable[[Tensor], Tensor]
) -> Float[Tensor, "B T D"]:
    """See `zoo.ops.glu.naive`."""
    log_kernel("glu", "torch")
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return by_equation(x, gate, up, down, activation)
    more = -len(gate[0]) % MULTIPLE
    g, u = (
        F.linear(x, F.pad(weight, (0, 0, 0, more)), None if bias is None else F.pad(bias, (0, more)))
        for weight, bias in (gate, up)
    )
    return F.linear(gated(g, u, activation), F.pad(down[0], (0, more)), down[1])
