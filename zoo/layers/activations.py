"""Activation functions, by the names that suites call them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from zoo.registry import nearest

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "sigmoid": F.sigmoid,
    "silu": F.silu,
}


def activation_of(name: str) -> Callable[[Tensor], Tensor]:
    """The function called `name`.

    Raises:
        ValueError: unknown.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}{nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]
