"""Log-linear Mamba-2: what its weights of levels mean, how many levels there are."""

import math

import pytest
import torch

from zoo.architectures.log_linear_mamba2 import LogLinearMamba2
from zoo.architectures.mamba2 import Mamba2
from zoo.contract import LayerContext

from .mixers import drawn, vectors


def test_with_equal_weights_it_is_mamba2():
    """With L = 0 every λ is softplus(0) = ln 2; so much less of y the gated norm does not see, but for ε."""
    context, x = LayerContext(width=24, length=70), vectors(2, 70, 24)
    ours = drawn(LogLinearMamba2(context, state_size=5, head_dim=6, n_groups=2))
    theirs = drawn(Mamba2(context, d_state=5, headdim=6, ngroups=2))
    torch.nn.init.zeros_(ours.L)
    weights = {name: value for name, value in ours.state_dict().items() if name != "L"}
    weights["in_proj.weight"] = weights["in_proj.weight"][: theirs.in_proj.out_features]  # without the rows of δ
    weights["D"] = weights["D"] / math.log(2)
    theirs.load_state_dict(weights)
    theirs.norm.eps = ours.norm.eps / math.log(2) ** 2
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])


@pytest.mark.parametrize(("length", "levels"), [(1, 2), (2, 2), (3, 3), (64, 7), (65, 8), (2**14, 15)])
def test_levels_follow_the_longest_sequence(length, levels):
    assert LogLinearMamba2(LayerContext(width=8, length=length)).levels == levels
