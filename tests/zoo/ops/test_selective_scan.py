"""The selective scan in chunks, and the gated one compiled, equal the loop: outputs, last state and gradients."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from zoo.ops import flops
from zoo.ops.kernel_log import record_kernels
from zoo.ops.selective_scan import (
    chunked,
    gated_selective_scan,
    gated_selective_scan_naive,
    selective_scan,
    selective_scan_naive,
    step,
)

from .conftest import assert_near_float64, assert_same

B, T, D, N = 2, 23, 3, 4


def draw(T=T, D=D, N=N, dtype=torch.float64):
    """Inputs with Δ > 0 and A < 0."""
    torch.manual_seed(0)
    inputs = [torch.randn(B, T, D), torch.randn(B, T, D).abs(), -torch.randn(D, N).exp()]
    inputs += [torch.randn(B, T, N), torch.randn(B, T, N), torch.randn(D), torch.randn(B, D, N)]
    return [x.to(dtype) for x in inputs]


def draw_gated(T, D=70, N=N, dtype=torch.float64):
    """Δ before softplus, some of it −∞ as padding has it; z is a view whose rows lie apart."""
    u, delta, A, B_, C, D_, state = draw(T, D, N)
    delta = 2 * torch.randn(B, T, D)
    delta[1, T - T // 3 :] = -float("inf")
    inputs = [u, delta, A, B_, C, D_, 3 * torch.randn(B, T, 2 * D)[..., D:], torch.randn(D), state]
    varying = (0, 1, 3, 4, 6)
    return [x.to(dtype if i in varying else torch.promote_types(dtype, torch.float32)) for i, x in enumerate(inputs)]


@pytest.mark.parametrize(("N", "loop"), [(4, True), (5, False)])
def test_which_form_ran(form, N, loop):
    with record_kernels() as kernels:
        gated_selective_scan(*draw_gated(5, N=N))
    assert kernels == {"selective_scan": "compiled loop" if loop and form == "compiled" else "torch"}


def test_the_loop_reads_as_the_equation():
    u, delta, A, B_, C, D_, h = draw(3)
    for t in range(3):
        a = torch.exp(torch.einsum("bd,dn->bdn", delta[:, t], A))
        h = a * h + torch.einsum("bd,bn->bdn", (delta * u)[:, t], B_[:, t])
        y = torch.einsum("bdn,bn->bd", h, C[:, t]) + D_ * u[:, t]
        torch.testing.assert_close(selective_scan_naive(*draw(3))[0][:, t], y, rtol=1e-12, atol=1e-12)


def test_the_gated_scan_is_the_scan_between_softplus_and_a_gate():
    u, delta, A, B_, C, D_, z, bias, state = draw_gated(9)
    y, h = selective_scan_naive(u, (1 + (delta + bias).exp()).log(), A, B_, C, D_, state)
    want = y * z * torch.sigmoid(z), h
    torch.testing.assert_close(gated_selective_scan_naive(u, delta, A, B_, C, D_, z, bias, state), want)


@pytest.mark.parametrize(("T", "given"), [(2, 5), (23, 6), (130, 7)], ids=["", "skip", "skip, resumed"])
def test_equals_the_loop(T, given):
    assert_same(selective_scan, selective_scan_naive, *draw(T)[:given])


@pytest.mark.parametrize("chunk", [1, 5, T])
def test_chunks_of_any_size(chunk):
    assert_same(lambda *x: chunked.selective_scan(*x, chunk=chunk), selective_scan_naive, *draw())


@pytest.mark.parametrize("T", [1, 17, 71])
@pytest.mark.parametrize(("D", "N"), [(3, 1), (130, 2), (70, 5), (130, 4)])
def test_gated_equals_the_loop(form, T, D, N):
    assert_same(gated_selective_scan, gated_selective_scan_naive, *draw_gated(T, D, N))


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 3e-6), (torch.bfloat16, 6e-3)], ids=str)
def test_gated_in_less_precision(form, dtype, limit):
    inputs = draw_gated(71, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        y, h = gated_selective_scan(*inputs)
        assert_near_float64(gated_selective_scan, gated_selective_scan_naive, *inputs, limit=limit)
    assert (y.dtype, h.dtype) == (dtype, torch.float32)


def test_softplus_gates_and_decays_far_from_zero(form):
    """Δ from e^−30 to 40, gates closed and open, Δ A down to where e^{Δ A} is 0 in float32."""
    inputs = draw_gated(40, dtype=torch.float32)
    inputs[1] = torch.linspace(-30, 40, inputs[1].numel()).view_as(inputs[1])
    inputs[6] = 50 * inputs[6]
    assert_near_float64(gated_selective_scan, gated_selective_scan_naive, *inputs, limit=1e-5)


def test_strided_inputs(form):
    inputs = draw_gated(33)
    wide = [torch.stack([x, x], dim=-1)[..., 0] for x in inputs]
    torch.testing.assert_close(gated_selective_scan(*wide), gated_selective_scan(*inputs))


def test_a_step_is_the_scan_of_one_step():
    u, delta, A, B_, C, D_, state = draw(1)
    y, h = selective_scan_naive(u, delta, A, B_, C, D_, state)
    torch.testing.assert_close(step(u[:, 0], delta[:, 0], A, B_[:, 0], C[:, 0], D_, state), (y[:, 0], h))


def test_what_is_kept_for_the_backward_pass_is_a_state_per_chunk(form):
    """Forms keep none of the others: what they save is less than the states of all steps."""
    saved, inputs = {}, [x.requires_grad_() for x in draw_gated(256, D=8, N=16)]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.setdefault(x.untyped_storage().data_ptr(), x), id):
        y, _ = gated_selective_scan(*inputs)
    kept = sum(x.untyped_storage().nbytes() for x in saved.values())
    assert kept < 0.7 * y.numel() * 16 * y.itemsize + sum(x.untyped_storage().nbytes() for x in inputs)


def test_counts_the_recurrence(form):
    """Torch's form counts the products with B and C as well, as the matrix products that they are."""
    inputs = [x.requires_grad_() for x in draw_gated(T)]
    forward, backward = (2, 4) if form == "compiled" else (4, 10)
    with flops.Counter() as own, FlopCounterMode(display=False) as products:
        y, _ = gated_selective_scan(*inputs)
        assert own.total == forward * y.numel() * N
        y.sum().backward()
    assert own.total == (forward + backward) * y.numel() * N
    assert products.get_total_flops() == 0
