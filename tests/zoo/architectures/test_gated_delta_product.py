"""Gated DeltaProduct: one step is Gated DeltaNet's, two reflections make a rotation."""

import math

import pytest
import torch

from zoo.architectures.gated_delta_net import GatedDeltaNet
from zoo.architectures.gated_delta_product import GatedDeltaProduct
from zoo.contract import LayerContext

from .mixers import drawn, vectors

CONTEXT = LayerContext(width=12, length=19)


def test_one_step_is_gated_delta_net():
    product, x = drawn(GatedDeltaProduct(CONTEXT, num_householder=1)), vectors(2, 19, 12)
    single = GatedDeltaNet(CONTEXT, allow_neg_eigval=True).double()
    single.load_state_dict(product.state_dict())
    torch.testing.assert_close(product(x)[0], single(x)[0])


@pytest.mark.parametrize("negative", [True, False])
def test_two_reflections_rotate(negative):
    """At β = 2 a token turns the state by twice the angle between its two keys: nine times 2π/9 are none. One step
    cannot, as its eigenvalues are real, nor can any number of steps with β ≤ 1, which only shrink the state."""
    options = {"heads": 1, "head_dim": 2, "expand_v": 1.0, "use_forget_gate": False, "use_short_conv": False}
    mixer = drawn(GatedDeltaProduct(LayerContext(width=1, length=9), allow_neg_eigval=negative, **options))
    keys = torch.tensor([[1.0, 0.0], [math.cos(math.pi / 9), math.sin(math.pi / 9)]])
    with torch.no_grad():
        mixer.k_proj.weight.copy_(1e3 * keys.flatten()[:, None])  # so large that SiLU does not bend them
        mixer.b_proj.weight.fill_(1e3)
        mixer.v_proj.weight.zero_()
    x, S = torch.ones(1, 9, 1, dtype=torch.float64), torch.eye(2, dtype=torch.float64)[None, None]
    after = [mixer(x[:, :n], state={"S": S})[1]["S"] for n in (1, 9)]
    if negative:
        assert torch.trace(after[0][0, 0]).item() == pytest.approx(2 * math.cos(2 * math.pi / 9))
        torch.testing.assert_close(after[1], S)
    else:
        assert after[1].norm() < 0.4 * S.norm()
