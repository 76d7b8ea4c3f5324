"""Sinkhorn attention: balancing, noise, the precision of sorting."""

import torch

from zoo.architectures.sinkhorn import Sinkhorn, balance
from zoo.contract import LayerContext

from .mixers import drawn, vectors

B, T, D, H = 3, 22, 8, 2


def build():
    return drawn(Sinkhorn(LayerContext(width=D, length=T, causal=False), heads=H, block_size=4), 1.0)


def test_balancing_makes_doubly_stochastic():
    P = balance(torch.randn(B, H, 5, 5, dtype=torch.float64), 50)
    torch.testing.assert_close(P.sum(2), torch.ones(B, H, 5, dtype=torch.float64))
    torch.testing.assert_close(P.sum(3), torch.ones(B, H, 5, dtype=torch.float64))


def test_balancing_leaves_dead_blocks_out():
    """The others balance as they would alone; a dead one maps to itself, and gradients are finite."""
    log_R = torch.randn(1, H, 5, 5, dtype=torch.float64, requires_grad=True)
    P = balance(log_R, 3, torch.tensor([[True, True, True, False, False]]))
    torch.testing.assert_close(P[..., :3, :3], balance(log_R[..., :3, :3], 3))
    assert torch.equal(P[..., 3:, 3:], torch.eye(2, dtype=torch.float64).expand(1, H, 2, 2))
    assert not P[..., :3, 3:].any()
    assert torch.autograd.grad(P.square().sum(), log_R)[0].isfinite().all()


def test_noise_in_training_only():
    mixer, x = build().eval(), vectors(B, T, D)
    assert torch.equal(mixer(x)[0], mixer(x)[0])
    mixer.train()
    assert not torch.allclose(mixer(x)[0], mixer(x)[0])


def test_sorting_stays_float32_under_autocast():
    mixer, x, alive = build().eval().float(), vectors(B, 20, D).float(), torch.ones(B, 5, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        P = mixer.sort(x, alive)
    torch.testing.assert_close(P, mixer.sort(x, alive), rtol=0, atol=0)


def test_a_table_of_the_default_length():
    assert Sinkhorn(LayerContext(width=256, length=64, causal=False)).linear.shape == (1, 4, 128, 4)
