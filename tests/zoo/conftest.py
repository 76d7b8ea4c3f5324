"""What tests of several architectures share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.contract import Mixer


@pytest.fixture
def continues() -> Callable[[Mixer, Tensor, Iterable[int]], None]:
    """`continues(mixer, x, cuts)`: cut at these steps, x gives the outputs and the final state that it gives whole."""

    def check(mixer: Mixer, x: Tensor, cuts: Iterable[int]) -> None:
        start: Any = mixer.init_state(len(x), device="cpu", dtype=x.dtype)
        whole, final = mixer(x, state=start)
        torch.testing.assert_close(mixer(x)[0], whole)
        assert mixer(x)[1] is None
        state, pieces = start, []
        for left, right in zip([0, *cuts], [*cuts, x.shape[1]], strict=True):
            y, state = mixer(x[:, left:right], state=state)
            pieces.append(y)
        torch.testing.assert_close(torch.cat(pieces, 1), whole)
        torch.testing.assert_close(state, final)

    return check


@pytest.fixture
def leaves_no_trace() -> Callable[[Mixer, Tensor], None]:
    """`leaves_no_trace(mixer, x)`, for two rows: NaN in padding changes nothing, and an empty row keeps its state."""

    def check(mixer: Mixer, x: Tensor) -> None:
        start: Any = mixer.init_state(len(x), device="cpu", dtype=x.dtype)
        mask = torch.arange(x.shape[1]) < torch.tensor([5, 0])[:, None]
        before: Any = mixer(torch.randn_like(x), state=start)[1]
        y, state = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask, state=before)
        alone, after = mixer(x[:1, :5], state={name: value[:1] for name, value in before.items()})
        assert state is not None
        assert after is not None
        torch.testing.assert_close(y[:1, :5], alone)
        assert bool(y.isfinite().all())
        for name, value in state.items():
            torch.testing.assert_close(value[:1], after[name])
            torch.testing.assert_close(value[1:], before[name][1:], rtol=0, atol=0)

    return check
