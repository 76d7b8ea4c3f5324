"""Mega: the size of its state, its length, decays that saturate, the Laplace activation, initial values."""

import math

import pytest
import torch

from zoo.architectures.mega import ELEMENTWISE, Mega
from zoo.contract import LayerContext, state_bytes

from .mixers import shaken, start, vectors

B, T, D = 3, 17, 4


def build(chunk=-1, *, bias="simple", length=T + 4):
    options = {"chunk_size": chunk, "rel_pos_bias": bias, "zdim": 6, "hdim": 5, "ndim": 3}
    return shaken(Mega(LayerContext(width=D, length=length), **options), 1.0)


@pytest.mark.parametrize(("chunk", "growing"), [(5, False), (-1, True)])
def test_state_with_chunks_has_one_size(chunk, growing):
    mixer, x = build(chunk), vectors(B, T, D)
    sizes = [state_bytes(mixer(x[:, :n], state=start(mixer, x))[1]) for n in (1, 8, T)]
    assert (sizes[1] - sizes[0] == 7 * B * (6 + 5) * 8) is growing
    assert (len(set(sizes)) == 1) is not growing


def test_length_ends_with_simple_positions_and_no_chunks_only():
    assert Mega.traits.length == build().traits.length == "max"
    for chunk, bias in ((5, "simple"), (-1, "rotary")):
        mixer, x = build(chunk, bias=bias, length=3), vectors(B, T, D)
        assert mixer.traits.length == "any"
        assert mixer(x)[0].shape == x.shape


def test_decays_that_saturate_stay_finite():
    """q = 1 − σ(δ) σ(α) rounds to 0 in float32 from 17 on; its logarithm must not be −∞."""
    mixer, x = build().float(), vectors(B, T, D).float().requires_grad_()
    mixer.move.delta.data.fill_(40)
    mixer.move.alpha.data.fill_(40)
    mixer(x, state=start(mixer, x))[0].sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in mixer.parameters() if p.grad is not None)


def test_laplace_is_the_normal_distribution_function():
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    normal = torch.distributions.Normal(math.sqrt(0.5), math.sqrt(1 / (4 * math.pi)))
    torch.testing.assert_close(ELEMENTWISE["laplace"](x), normal.cdf(x), rtol=0, atol=1e-5)


def test_initial_sizes_and_averages():
    mixer = Mega(LayerContext(width=256, length=50))
    assert (mixer.zdim, mixer.hdim, mixer.move.gamma.shape) == (64, 512, (256, 16))
    beta = mixer.move.beta.detach()[..., 0]
    torch.testing.assert_close(beta.mean(0), torch.tensor([1.0, -1.0] * 8), rtol=0, atol=0.01)
    assert beta[:, 0].std().item() == pytest.approx(0.02, rel=0.2)
    assert Mega(LayerContext(width=256, length=50, causal=False)).move.gamma.shape == (512, 16)
