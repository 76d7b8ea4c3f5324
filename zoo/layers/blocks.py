"""Keys and values in blocks of a row's steps, of which each query chooses some (NSA, MoBA).

A row's steps are its valid ones. So in the cache each key stands at its own step, whatever padding came between calls;
what padding left behind a row's n steps is seen by none of them, and the next ones overwrite it.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.contract import State
from zoo.layers.tensors import put_steps


def lined_up(
    state: State | None, k: Float[Tensor, "B G T d"], v: Float[Tensor, "B G T d"], now: Int[Tensor, "#B T"]
) -> tuple[Float[Tensor, "B G S d"], Float[Tensor, "B G S d"]]:
    """Keys and values, each at its step, those of the cache included. `now` are the steps of the new ones."""
    if state is None:
        return k, v
    k, v = (put_steps(F.pad(state[name], (0, 0, 0, x.shape[2])), x, now) for name, x in (("k", k), ("v", v)))
    return k, v


def means(x: Float[Tensor, "B G S d"], size: int) -> Float[Tensor, "B G N d"]:
    """The mean of every block of `size` steps. That of a block which is not full counts its missing steps as zeros."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % size)).unflatten(2, (-1, size)).mean(3)


def largest(scores: Float[Tensor, "B H T N"], count: int) -> Bool[Tensor, "B H T N"]:
    """Which `count` blocks have the largest scores."""
    top = scores.topk(min(count, scores.shape[-1]), dim=-1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, top, True)


def seen(chosen: Bool[Tensor, "B H T N"], size: int, now: Int[Tensor, "#B T"], S: int) -> Bool[Tensor, "B H T S"]:
    """Which of S keys queries at the steps `now` see: those of chosen blocks, up to their own step."""
    past = torch.arange(S, device=now.device) <= now[:, None, :, None]
    return chosen.repeat_interleave(size, dim=-1)[..., :S] & past
