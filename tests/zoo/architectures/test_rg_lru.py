"""Griffin's recurrent block: the first step, the root, decays at the start."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.rg_lru import BoundedSqrt, RecurrentBlock
from zoo.contract import LayerContext

from .mixers import shaken, start, vectors

B, T, D = 3, 13, 8


@pytest.mark.parametrize("cut", [1, 4])
def test_only_the_first_step_of_a_sequence_enters_unscaled(cut):
    """Also where it comes alone, or behind a call that was all padding."""
    mixer, x = shaken(RecurrentBlock(LayerContext(width=D, length=T), heads=2)), vectors(B, T, D)
    whole, _ = mixer(x)
    _, state = mixer(x, mask=torch.zeros(B, T, dtype=torch.bool), state=start(mixer, x))
    assert not state["started"].any()
    first, state = mixer(x[:, :cut], state=state)
    assert state["started"].all()
    rest, _ = mixer(x[:, cut:], state=state)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole)
    restarted, _ = mixer(x[:, cut:], state={**state, "started": torch.zeros(B, dtype=torch.bool)})
    assert (restarted - rest).abs().max() > 1e-3


def test_the_root_is_steep_but_not_infinitely():
    x = torch.tensor([0.0, 1e-8, 0.25], dtype=torch.float64, requires_grad=True)
    y = BoundedSqrt.apply(x)
    y.sum().backward()
    torch.testing.assert_close(y, x.sqrt())
    torch.testing.assert_close(x.grad, torch.tensor([1000.0, 1000.0, 1.0], dtype=torch.float64))


def test_initial_decays():
    torch.manual_seed(0)
    mixer = RecurrentBlock(LayerContext(width=128, length=T, depth=8), heads=2, lru_width=256)
    a = torch.exp(-F.softplus(mixer.rg_lru.recurrent_param))
    assert 0.9 <= a.min() < 0.905
    assert 0.998 < a.max() <= 0.9991
