"""Kimi delta attention and Gated DeltaNet-2: bounds of the decay, all forgotten at once, and where the two are one."""

import torch

from zoo.architectures.gated_delta_net_2 import GatedDeltaNet2
from zoo.architectures.kda import KDA
from zoo.contract import LayerContext

from .mixers import drawn, vectors

CONTEXT = LayerContext(width=12, length=19)


def test_decays_stay_above_their_bound():
    for bound in (-0.5, -5.0):
        g = drawn(KDA(CONTEXT, lower_bound=bound)).log_decay(50 * vectors(2, 19, 12))
        assert bound <= g.min() < 0.99 * bound
        assert 0.01 * bound < g.max() <= 0


def test_a_decay_to_nothing_leaves_the_present_token():
    mixer, x = drawn(KDA(CONTEXT, use_short_conv=False)), vectors(2, 19, 12)
    mixer.dt_bias.data.fill_(torch.inf)
    alone = torch.cat([mixer(step)[0] for step in x.split(1, dim=1)], dim=1)
    torch.testing.assert_close(mixer(x)[0], alone)


def test_equal_gates_of_gated_delta_net_2_are_beta():
    """b = w = β, in each channel of a head."""
    kda, both, x = drawn(KDA(CONTEXT)), GatedDeltaNet2(CONTEXT).double(), vectors(2, 19, 12)
    b = kda.b_proj.weight
    gates = {"b_proj.weight": b.repeat_interleave(kda.K, 0), "w_proj.weight": b.repeat_interleave(kda.V, 0)}
    both.load_state_dict(kda.state_dict() | gates)
    torch.testing.assert_close(both(x)[0], kda(x)[0])
