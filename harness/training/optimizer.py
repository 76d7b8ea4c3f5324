"""Parameter groups from the model's own overrides, AdamW over them, and the training step."""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from harness.gates.question import asked
from tasks.parts import Part
from zoo.contract import Batch, Model, ParamOverride

_DECAYING = (nn.Linear, nn.Conv1d, nn.Conv2d)


def decaying(model: Model) -> set[int]:
    """The ids of the parameters that decay where no override says otherwise."""
    weights = {id(m.weight) for m in model.modules() if isinstance(m, _DECAYING)}
    return weights - {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}  # a table tied to the head


def parameter_groups(model: Model, *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Every trainable parameter in exactly one group, each with its peak learning rate `peak` and its decay.

    Weights of linear and convolution layers decay; biases, norms, embeddings and raw parameters do not, unless an
    override says otherwise. A parameter's rate is min(lr · lr_scale, lr_max).
    """
    overrides, usual = model.param_overrides(), decaying(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        own = overrides.get(name, ParamOverride())
        peak = min(lr * own.lr_scale, math.inf if own.lr_max is None else own.lr_max)
        decays = id(parameter) in usual if own.decay is None else own.decay
        groups.setdefault((peak, weight_decay if decays else 0.0), []).append(parameter)
    return [{"params": p, "peak": peak, "lr": peak, "weight_decay": decay} for (peak, decay), p in groups.items()]


def adamw(model: Model, *, lr: float, betas: tuple[float, float], weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) over `parameter_groups`."""
    return torch.optim.AdamW(parameter_groups(model, lr=lr, weight_decay=weight_decay), betas=betas, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, fraction: float) -> None:
    """Every group at this fraction of its own peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * fraction


def descend(
    model: nn.Module,
    parts: Iterable[Part],
    loss: Callable[[Tensor, Batch], Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    autocast: AbstractContextManager[Any],
    clip: float | None,
) -> tuple[float, float]:
    """One training step: forward under `autocast`, backward, gradients clipped to norm `clip`, and an update.

    Args:
        parts: of the batch, one after the other.

    Returns loss and gradient norm as numbers, so that the step is over when it returns, on any device.
    """
    values = []
    for batch, weight in parts:
        with autocast:
            logits = model(asked(batch))
        value = loss(logits, batch)
        value.backward(None if weight is None else torch.full_like(value, weight))
        values.append((value.detach(), weight))
    norm: Any = nn.utils.clip_grad_norm_(model.parameters(), clip or math.inf)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of shards, whose norm is in parts
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return sum(value.item() * (1.0 if weight is None else weight) for value, weight in values), float(norm)
