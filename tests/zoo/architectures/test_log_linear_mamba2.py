"""Log-linear Mamba-2: what its weights of levels mean, how many levels there are."""

import pytest
import torch

from zoo.architectures.log_linear_mamba2 import LogLinearMamba2
from zoo.architectures.mamba2 import Mamba2
from zoo.contract import LayerContext

from .mixers import drawn, vectors


def test_with_equal_weights_it_is_mamba2():
    """λ = softplus(L ⊙ δ) is ln 2 where L is 0, which twice as large values undo."""
    context, x = LayerContext(width=24, length=70), vectors(2, 70, 24)
    sizes = {"expand": 2, "d_state": 5, "headdim": 6, "ngroups": 2, "norm_groups": 2}
    ours = drawn(LogLinearMamba2(context, state_size=5, head_dim=6, n_groups=2))
    theirs = drawn(Mamba2(context, **sizes))
    torch.nn.init.zeros_(ours.L)
    weights = {name: value for name, value in ours.state_dict().items() if name not in ("L", "in_proj.weight")}
    rows = ours.in_proj.weight[: theirs.in_proj.out_features].clone()
    theirs.load_state_dict({**weights, "in_proj.weight": rows})
    scaled = ours.D.detach() / torch.log(torch.tensor(2.0).double())
    theirs.D.data = scaled  # so that both of Mamba-2's terms are 1 / ln 2 times ours, which its norm removes
    theirs.norm.eps = ours.norm.eps / torch.log(torch.tensor(2.0)).item() ** 2
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])


@pytest.mark.parametrize(("length", "levels"), [(1, 2), (2, 2), (3, 3), (64, 7), (65, 8), (2**14, 15)])
def test_levels_follow_the_longest_sequence(length, levels):
    assert LogLinearMamba2(LayerContext(width=8, length=length)).levels == levels
