"""What the tests of several mixers share."""

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
