"""Raven: what the router chooses, and when it is noisy."""

import pytest
import torch

from zoo.architectures.raven import Raven
from zoo.contract import LayerContext

from .mixers import drawn, start, vectors

CONTEXT = LayerContext(width=24, length=9)


@pytest.mark.parametrize(("score", "total"), [("sigmoid", 1.0), ("softmax", None)])
@pytest.mark.parametrize("decay_type", ["Mamba2", "GLA"])
def test_only_routed_slots_change(score, total, decay_type):
    options = {"num_slots": 7, "topk": 2, "router_score": score, "decay_type": decay_type}
    mixer = drawn(Raven(CONTEXT, heads=3, **options)).eval()
    x = vectors(2, 9, 24)
    _, before = mixer(x[:, :8], state=start(mixer, x))
    _, after = mixer(x[:, 8:], state=before)
    routed = mixer.route(x[:, 8:])
    assert (routed > 0).sum(-1).eq(2).all()
    if total is not None:
        torch.testing.assert_close(routed.sum(-1), torch.full_like(routed[..., 0], total))
    kept = (routed[:, :, 0] == 0)[..., None]
    for old, new in ((before["K"].mT, after["K"].mT), (before["V"], after["V"])):
        torch.testing.assert_close(new * kept, old * kept, rtol=0, atol=0)
        assert (new != old).any(-1).eq(~kept[..., 0]).all()


def test_noise_is_drawn_while_training_only():
    mixer, x = drawn(Raven(CONTEXT)), vectors(2, 9, 24)
    assert torch.equal(mixer.eval()(x)[0], mixer(x)[0])
    assert not torch.equal(mixer.train()(x)[0], mixer(x)[0])
    torch.manual_seed(0)
    once = mixer(x)[0]
    torch.manual_seed(0)
    assert torch.equal(mixer(x)[0], once)
    quiet = drawn(Raven(CONTEXT, add_gumbel_noise=False)).train()
    assert torch.equal(quiet(x)[0], drawn(Raven(CONTEXT)).eval()(x)[0])


def test_equal_scores_are_equal_weights():
    mixer, x = drawn(Raven(CONTEXT, heads=2, num_slots=6, topk=6)).eval(), vectors(2, 9, 24)
    torch.nn.init.zeros_(mixer.r_proj.weight)
    torch.testing.assert_close(mixer.route(x), torch.full((2, 2, 9, 6), 1 / 6).double())
