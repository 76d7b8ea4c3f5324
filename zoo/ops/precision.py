"""Float32 where half precision would not do, whatever autocast says."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def no_autocast(device: torch.device) -> AbstractContextManager[None]:
    """A context without autocast (which the meta device does not know)."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def promote(*tensors: Tensor | None) -> torch.dtype:
    """What decays and states are computed in: the widest dtype among the tensors there are, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        if tensor is not None:
            dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def at_least_fp32(x: Tensor) -> Tensor:
    """`x` in float32 at least; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
