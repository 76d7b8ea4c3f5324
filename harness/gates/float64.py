"""A float64 copy of a model, in which rounding hides little."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness.gates.question import asked
from zoo.contract import Batch, Model

FINE, COARSE = 1e-9, 1e-5
"""What rounding may change, relative to the largest logit: in float64, and where something computes in less.

A leak below the coarse limit moves a score by no more than that; the fine one finds those that other inputs enlarge.
"""
_LESS = (torch.float32, torch.bfloat16, torch.float16, torch.complex64)


@dataclass
class Float64Copy:
    """A copy of a model in float64 on the CPU where it can compute there, else as it is."""

    model: Model
    limit: float
    """What rounding may change."""
    about: str
    device: torch.device
    seed: int = field(default_factory=lambda: random.SystemRandom().getrandbits(63))
    """Of the random numbers in every call."""

    @classmethod
    def of(cls, model: Model, batch: Batch) -> Float64Copy:
        """A copy that is no part of what is scored: it may be changed."""
        device = next(model.parameters()).device
        try:
            twin = copy.deepcopy(model).cpu().double().eval()
            with torch.no_grad(), _PrecisionLog() as log:
                logits = twin(asked(to_float64(batch)))
            if logits.dtype == torch.float64 and not log.less:
                return cls(twin, FINE, "in float64", torch.device("cpu"))
            return cls(twin, COARSE, "in float64, but for what the model computes in less", torch.device("cpu"))
        except Exception:  # code for one device or one precision fails in its own way
            twin, about = copied(model).eval(), "in the model's own precision, as it cannot compute in float64"
            return cls(twin, COARSE, about, device)

    def __call__(self, batch: Batch) -> Tensor:
        """Logits, with the same random numbers in every call."""
        with torch.random.fork_rng():
            # torch.manual_seed formats its caller's stack for every kind of accelerator, also where there is none
            (torch.random.default_generator if self.device.type == "cpu" else torch.random).manual_seed(self.seed)
            double = next(self.model.parameters()).dtype == torch.float64
            return self.model(asked(to_float64(batch) if self.device.type == "cpu" and double else batch))


def copied(model: Model) -> Model:
    """A copy of a model; itself where it holds tensors inside a graph, which cannot be copied."""
    try:
        return copy.deepcopy(model)
    except Exception:
        return model


def to_float64(batch: Batch) -> Batch:
    """The batch with vectors in float64."""
    return Batch(**{n: v.double() if v.is_floating_point() else v for n, v in batch.arrays().items()})


class _PrecisionLog(TorchDispatchMode):
    """Notes whether any operator returns numbers of less than float64."""

    less = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for value in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(value, Tensor) and value.dtype in _LESS and value.numel() > 1:
                self.less = True
        return found


@contextmanager
def undone(model: Model, *, training: bool) -> Iterator[None]:
    """Put a model in training or evaluation mode; what a pass leaves in it (running means) is undone."""
    saved = {name: value.clone() for name, value in model.state_dict().items()}
    model.train(training)
    try:
        yield
    finally:
        model.eval()
        model.load_state_dict(saved, strict=False)
