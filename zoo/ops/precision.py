"""Float32 where half precision would not do, whatever autocast says."""

import functools
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def no_autocast(device: torch.device) -> AbstractContextManager[None]:
    """A context without autocast (which the meta device does not know)."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def promote(*tensors: Tensor | None) -> torch.dtype:
    """What decays and states are computed in: the widest dtype among the tensors there are, float32 at least."""
    return functools.reduce(torch.promote_types, (x.dtype for x in tensors if x is not None), torch.float32)


def at_least_fp32(x: Tensor) -> Tensor:
    """`x` in float32 at least; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def common_dtype(*tensors: Tensor) -> torch.dtype:
    """What all of these can be converted to."""
    return functools.reduce(torch.promote_types, (x.dtype for x in tensors))


def matmul_dtype(*tensors: Tensor) -> torch.dtype:
    """What matrix products of these run in: their own dtype, and bfloat16 for float32 where autocast says so."""
    dtype = common_dtype(*tensors)
    kind = tensors[0].device.type
    lowered = dtype is torch.float32 and kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if lowered else dtype
