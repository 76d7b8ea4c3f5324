"""What a model is given of a batch: all but the answers."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from zoo import size as sizing
from zoo.contract import Batch, Model

_DRAW = random.SystemRandom()


def asked(batch: Batch) -> Batch:
    """The batch as a model is given it: its targets, and which of them count, are drawn at random in every call.

    There is nothing to be known from them, and outputs that depend on them are other ones every time.
    """
    return replace(batch, targets=_drawn(batch.targets), counted=_drawn(batch.counted))


def _drawn(like: Tensor | None) -> Tensor | None:
    """Zeros and ones in the shape of another tensor."""
    if like is None:
        return None
    chance = torch.Generator(like.device).manual_seed(_DRAW.getrandbits(63))
    return torch.empty_like(like).random_(0, 2, generator=chance)


def training_flops(
    model: Model, batch: Batch, loss: Callable[[Tensor, Batch], Tensor], autocast: AbstractContextManager[Any]
) -> int:
    """FLOPs of a training step on a batch, as `zoo.size.training_flops` counts them."""
    return sizing.training_flops(model, asked(batch), lambda logits, _: loss(logits, batch), autocast=autocast)
