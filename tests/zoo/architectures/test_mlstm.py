"""mLSTM: the cell against the paper's equations, its forms, extreme gates, widths."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.mlstm import MLSTM
from zoo.contract import LayerContext
from zoo.layers.xlstm import LinearHeadwise
from zoo.ops.mlstm import exponents, mlstm, mlstm_naive

B, H, K, V = 3, 2, 4, 5


def inputs(T, spread=2.0, dtype=torch.float64):
    """q, k, v and the pre-activations of both gates."""
    torch.manual_seed(0)
    shapes = [(B, H, T, K), (B, H, T, K), (B, H, T, V), (B, H, T), (B, H, T)]
    return [(spread * torch.randn(shape, dtype=dtype)).requires_grad_() for shape in shapes]


def actual(state):
    """The memory without its common scale."""
    C, n, m = state
    return C * m.exp()[..., None, None], n * m.exp()[..., None]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("T", [1, 2, 13, 70])
def test_chunks_equal_the_loop(T, resumed, masked):
    """Outputs, state and gradients. With ε = 0, as m then has no gradient."""
    args, state = inputs(T), None
    if resumed:
        C, n, m = (torch.randn(shape, dtype=torch.float64) for shape in ((B, H, K, V), (B, H, K), (B, H)))
        state = C.requires_grad_(), n.requires_grad_(), m
    mask = torch.arange(T) < torch.tensor([T, T // 2, 0])[:, None] if masked else None
    leaves = args + list(state[:2] if state else ())
    (fast, after), (slow, naive_after) = (f(*args, state, mask=mask, eps=0.0) for f in (mlstm, mlstm_naive))
    if mask is not None:
        fast, slow = fast.transpose(1, 2)[mask], slow.transpose(1, 2)[mask]
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(after, naive_after)
    cotangents = [torch.randn_like(x) for x in (slow, *actual(naive_after))]
    got = torch.autograd.grad([fast, *actual(after)], leaves, cotangents)
    wanted = torch.autograd.grad([slow, *actual(naive_after)], leaves, cotangents)
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("form", [mlstm, mlstm_naive])
def test_is_the_cell_of_the_paper(form):
    """Without any stabilisation (section 2.3)."""
    q, k, v, i, f = inputs(9, spread=1.0)
    h, (C_end, n_end, m) = form(q, k, v, i, f, eps=0.0)
    C, n = torch.zeros(B, H, K, V, dtype=torch.float64), torch.zeros(B, H, K, dtype=torch.float64)
    for t in range(9):
        k_t, new = k[:, :, t] / K**0.5, i[:, :, t].exp()[..., None]
        keep = torch.sigmoid(f[:, :, t])[..., None]
        C = keep[..., None] * C + new[..., None] * k_t[..., None] * v[:, :, t, None]
        n = keep * n + new * k_t
        read, total = torch.einsum("bhk,bhkv->bhv", q[:, :, t], C), (q[:, :, t] * n).sum(-1).abs()
        torch.testing.assert_close(h[:, :, t], read / total.clamp(min=1)[..., None])
    torch.testing.assert_close(actual((C_end, n_end, m)), (C, n))


def test_exponents_equal_their_recurrence():
    log_f, i, m = -3 * torch.rand(B, H, 21), 4 * torch.randn(B, H, 21), torch.randn(B, H)
    found = exponents(log_f, i, m)
    for t in range(21):
        torch.testing.assert_close(found[..., t], m)
        m = torch.maximum(log_f[..., t] + m, i[..., t])
    torch.testing.assert_close(found[..., -1], m)


@pytest.mark.parametrize(("i", "f"), [(500.0, 500.0), (-500.0, -500.0), (500.0, -500.0), (-500.0, 500.0)])
def test_extreme_gates_stay_finite(i, f):
    """In float32, where e^89 is infinite; outputs agree with float64's."""
    args = inputs(70, spread=1.0, dtype=torch.float32)
    for gate, size in zip(args[3:], (i, f), strict=True):
        gate.data = size * torch.where(torch.rand_like(gate) < 0.3, -1.0, 1.0)
    h, state = mlstm(*args)
    torch.testing.assert_close(h, mlstm_naive(*(x.double() for x in args))[0].float(), rtol=1e-3, atol=1e-4)
    grads = torch.autograd.grad(h.sum(), args)
    assert all(bool(x.isfinite().all()) for x in (*state, *grads))


def test_blocks_are_one_block_diagonal_matrix():
    layer = LinearHeadwise(12, 3, bias=True)
    weight, bias, x = torch.randn(3, 4, 4), torch.randn(12), torch.randn(2, 5, 12)
    layer.load_state_dict({"weight": weight, "bias": bias})
    joined = layer(x).permute(1, 2, 0, 3).flatten(2)  # (G, B, T, d) to (B, T, D)
    torch.testing.assert_close(joined, F.linear(x, torch.block_diag(*weight), bias))


@pytest.mark.parametrize(
    ("options", "inner"),
    [
        ({}, 40),
        ({"round_proj_up_to_multiple_of": 64}, 64),
        ({"proj_factor": 4.0}, 80),
        ({"heads": 3}, 48),
        ({"heads": 5, "qkv_proj_blocksize": 2, "round_proj_up_to_multiple_of": 10, "proj_factor": 1.0}, 20),
    ],
)
def test_width_inside(options, inner):
    assert MLSTM(LayerContext(width=20, length=8), **options).learnable_skip.shape == (inner,)
