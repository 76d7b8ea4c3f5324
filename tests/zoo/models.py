"""Small models for tests: random weights, decoding in pieces, and refusals of one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

import zoo
from zoo.contract import Batch, Model, State
from zoo.published import PretrainedError

Module = TypeVar("Module", bound=nn.Module)


def randomise(module: Module, scale: float = 0.3) -> Module:
    """Add N(0, scale) to every parameter, so that nothing hides behind initial zeros and ones; in eval mode."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=scale)
    return module.eval()


def close(got: Tensor, want: Tensor, tolerance: float = 1e-10) -> None:
    """The largest difference is at most `tolerance` of the largest number."""
    scale = float(want.detach().abs().max()) if want.numel() else 0.0
    torch.testing.assert_close(got, want, rtol=0, atol=tolerance * scale)


@torch.no_grad()
def logits(model: Model, inputs: Tensor) -> Tensor:
    """The model's logits for a batch of nothing but inputs."""
    return model(Batch(inputs=inputs))


def in_pieces(model: Model, tokens: Tensor, sizes: Sequence[int], state: State | None = None) -> tuple[Tensor, State]:
    """The logits of tokens that are read in pieces of these sizes, and the last state."""
    state, found = model.init_state(len(tokens)) if state is None else state, []
    with torch.no_grad():
        for piece in tokens.split(list(sizes), dim=1):
            y, state = model.extend(piece, state)
            found.append(y)
    return torch.cat(found, 1), state


def refused(where: Any, words: str, **options: Any) -> None:
    """Opening published weights raises one line with these words."""
    with pytest.raises(PretrainedError) as caught:
        zoo.load(where, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
