"""Angular locality-sensitive hashing (Andoni et al. 2015, arXiv:1509.02897; Kitaev et al. 2020, section 2)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


@torch.no_grad()
def hash_buckets(
    x: Float[Tensor, "B H T K"], rotations: Float[Tensor, "H K R F"], factors: Sequence[int]
) -> Int[Tensor, "B H R T"]:
    """h(x) = argmax [x R, −x R] for each of R rounds, a bucket below the product of `factors`.

    `factors` are even numbers and F half their sum: with more than one, each takes its own columns of the rotations,
    and the hashes combine as digits, the first counting least.
    """
    rotated = torch.einsum("bhtk,hkrf->bhrtf", x, rotations.to(x.dtype))
    bucket, place = torch.zeros(rotated.shape[:-1], dtype=torch.long, device=x.device), 1
    for factor, part in zip(factors, rotated.split([n // 2 for n in factors], dim=-1), strict=True):
        bucket = bucket + place * torch.cat([part, -part], dim=-1).argmax(-1)
        place *= factor
    return bucket
