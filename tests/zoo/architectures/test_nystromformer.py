"""Nyströmformer: the pseudo-inverse and its two starts, segments of valid steps."""

import pytest
import torch

from zoo.architectures.nystromformer import Nystromformer, landmarks
from zoo.contract import LayerContext

from .mixers import drawn, vectors

B, T, D, H = 2, 12, 8, 2


def build(**options):
    context = LayerContext(width=D, length=T, causal=False)
    return drawn(Nystromformer(context, heads=H, num_landmarks=4, conv_kernel_size=3, **options))


@pytest.mark.parametrize("init_option", ["exact", "original"])
def test_the_iteration_inverts(init_option):
    A = (torch.randn(B, H, 4, 4, dtype=torch.float64) + 2 * torch.eye(4)).softmax(-1)
    mixer = build(init_option=init_option, iterations=25)
    torch.testing.assert_close(mixer.inverse(A), torch.linalg.inv(A), rtol=1e-8, atol=1e-8)
    assert (build(init_option=init_option).inverse(A) - torch.linalg.inv(A)).abs().max() > 1e-6


@pytest.mark.parametrize(("option", "same"), [("exact", True), ("original", False)])
def test_only_the_exact_option_is_blind_to_the_batch(option, same):
    mixer, x = build(init_option=option, iterations=2), vectors(B, T, D)
    alone = torch.cat([mixer(row)[0] for row in x.split(1)])
    assert torch.allclose(mixer(x)[0], alone, rtol=1e-12, atol=1e-12) == same


def test_segments_divide_the_valid_steps():
    z = torch.arange(10.0, dtype=torch.float64)[None, None, :, None].expand(2, 1, 10, 1)
    mask = torch.arange(10) < torch.tensor([[10], [6]])
    assert landmarks(z, 4).flatten().tolist()[:4] == [1, 3.5, 6, 8.5]  # 0 1 2 | 3 4 | 5 6 7 | 8 9
    assert landmarks(z, 4, mask)[1].flatten().tolist() == [0.5, 2, 3.5, 5]  # 0 1 | 2 | 3 4 | 5
    torch.testing.assert_close(landmarks(z, 5), landmarks(z, 5, torch.ones(2, 10, dtype=torch.bool)))
