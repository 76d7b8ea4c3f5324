"""Activation functions, by the names that suites call them."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F

from zoo.registry import Table

ACTIVATIONS = Table(
    "activation",
    {
        "gelu": F.gelu,
        "gelu_tanh": partial(F.gelu, approximate="tanh"),
        "relu": F.relu,
        "relu2": lambda x: F.relu(x).square(),
        "sigmoid": F.sigmoid,
        "silu": F.silu,
    },
)
