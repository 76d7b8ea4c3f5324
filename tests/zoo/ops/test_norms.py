"""Norms over the width of a head, as the equations read."""

import pytest
import torch
import torch.nn.functional as F

from zoo.ops import elementwise, norms

from .conftest import differentiated


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_norms_equal_their_equations(dtype):
    torch.manual_seed(0)
    x, y, w = (torch.randn(shape).to(dtype) for shape in ((3, 5, 9), (3, 5, 9), (9,)))
    X, Y, W = x.double(), y.double(), w.double()
    phi, centred, limit = F.elu(X) + 1, X - X.mean(-1, keepdim=True), 4 * torch.finfo(dtype).eps

    def normed(u):
        return W * u / (u.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    for ours, true in (
        (norms.unit(x, 0.3), 0.3 * X / X.norm(dim=-1, keepdim=True)),
        (norms.simplex(x), phi / phi.sum(-1, keepdim=True)),
        (norms.rms(x, w, 1e-5, y, "sigmoid"), normed(X) * Y.sigmoid()),
        (norms.rms(x, w, 1e-5, y), normed(X) * F.silu(Y)),
        (norms.gated_rms(x, w, 1e-5, y), normed(X * F.silu(Y))),
        (
            norms.layer(x, w, 2 * w, 1e-5),
            normed(centred) + 2 * W,
        ),
    ):
        assert ours.dtype is dtype
        torch.testing.assert_close(ours.double(), true, rtol=limit, atol=limit + 1e-6)


def test_rows_that_vanish():
    """Zeros, and elu + 1 of what is far below zero: finite, with finite gradients."""
    for norm, x in ((norms.unit, torch.zeros(2, 8)), (norms.simplex, torch.full((2, 8), -90.0))):
        assert all(bool(y.isfinite().all()) for y in differentiated(norm, x))


def test_features_far_from_zero():
    x = torch.tensor([-1e4, -100.0, 100.0, 1e4])
    torch.testing.assert_close(elementwise.positive(x), torch.tensor([0.0, 0.0, 101.0, 10001.0]), rtol=0, atol=1e-43)
