"""The selective scan, in chunks and compiled, equals the loop, in outputs, last state and gradients."""

import pytest
import torch
import torch.nn.functional as F
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

from .conftest import assert_same, differentiated

pytestmark = pytest.mark.usefixtures("form")
B, T, D, N = 2, 23, 3, 4
NAMES = "u", "delta", "A", "B", "C", "D", "state"
GATED = "u", "delta", "A", "B", "C", "D", "z", "bias", "state"


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
        selective_scan(*draw(N=N))
    assert kernels.get("selective_scan", "torch") == ("compiled loop" if loop and form == "compiled" else "torch")


def test_the_loop_reads_as_the_equation():
    u, delta, A, B_, C, D_, h = draw(3)
    for t in range(3):
        a = torch.exp(torch.einsum("bd,dn->bdn", delta[:, t], A))
        h = a * h + torch.einsum("bd,bn->bdn", (delta * u)[:, t], B_[:, t])
        y = torch.einsum("bdn,bn->bd", h, C[:, t]) + D_ * u[:, t]
        torch.testing.assert_close(selective_scan_naive(*draw(3))[0][:, t], y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("given", [5, 6, 7], ids=["", "skip", "skip, resumed"])
@pytest.mark.parametrize(("T", "D", "N"), [(2, 3, 4), (23, 3, 4), (71, 70, 2), (130, 3, 5), (33, 130, 4)])
def test_equals_the_loop(T, D, N, given):
    assert_same(selective_scan, selective_scan_naive, *draw(T, D, N)[:given])


@pytest.mark.parametrize("chunk", [1, 5, T])
def test_chunks_of_any_size(chunk):
    assert_same(lambda *x: chunked.selective_scan(*x, chunk=chunk), selective_scan_naive, *draw())


@pytest.mark.parametrize("T", [1, 2, 17, 71])
@pytest.mark.parametrize("N", [1, 4, 5])
def test_gated_equals_the_loop(T, N):
    assert_same(gated_selective_scan, gated_selective_scan_naive, *draw_gated(T, 130, N))


def test_float32_and_strong_decays():
    """Δ A from −10⁻³ to −10³, where e^{Δ A} is 0 in float32."""
    inputs = draw(71, D=70)
    inputs[1] = 10 * inputs[1] ** 3
    got = differentiated(selective_scan, *(x.float() for x in inputs))
    for x, y in zip(got, differentiated(selective_scan_naive, *inputs), strict=True):
        assert (x.double() - y).norm() < 2e-6 * y.norm()


def test_steps_without_delta_leave_the_state():
    """Δ = 0, as padding has it: the state is the one before."""
    u, delta, A, B_, C, D_, state = draw(40, dtype=torch.float32)
    delta[:, 9:] = 0
    short = selective_scan(u[:, :9], delta[:, :9], A, B_[:, :9], C[:, :9], D_, state)[1]
    torch.testing.assert_close(selective_scan(u, delta, A, B_, C, D_, state)[1], short, rtol=1e-5, atol=1e-6)


def test_strided_inputs():
    inputs = draw(33)
    wide = [torch.stack([x, x], dim=-1)[..., 0] for x in inputs]
    torch.testing.assert_close(selective_scan(*wide), selective_scan(*inputs))


def test_pieces_and_steps_continue_exactly():
    u, delta, A, B_, C, D_, state = draw()
    whole, last = selective_scan(u, delta, A, B_, C, D_, state)
    y, h = selective_scan(u[:, :7], delta[:, :7], A, B_[:, :7], C[:, :7], D_, state)
    outputs = [y]
    for t in range(7, T):
        y, h = step(u[:, t], delta[:, t], A, B_[:, t], C[:, t], D_, h)
        outputs.append(y[:, None])
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(h, last, rtol=1e-12, atol=1e-12)


def test_what_is_kept_for_the_backward_pass_is_a_state_per_chunk():
    """Forms keep none of the others: what they save is less than the states of all steps."""
    saved, inputs = {}, [x.requires_grad_() for x in draw(T=256, D=8)]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.setdefault(x.untyped_storage().data_ptr(), x), id):
        y, _ = selective_scan(*inputs)
    assert sum(x.untyped_storage().nbytes() for x in saved.values()) < 0.7 * y.numel() * N * y.itemsize + sum(
        x.nbytes for x in inputs
    )


@pytest.mark.parametrize("length", [1, T])
def test_bfloat16_and_autocast_keep_a_float32_recurrence(length):
    inputs = draw(length, dtype=torch.bfloat16)
    exact, last = selective_scan_naive(*(x.double() for x in inputs))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, h = selective_scan(*inputs)
    assert (y.dtype, h.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(h.double(), last, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(y.double(), exact, rtol=1e-2, atol=1e-2)


def test_counts_the_recurrence(form):
    """Torch's form counts the products with B and C as well, as the matrix products that they are."""
    inputs = [x.requires_grad_() for x in draw()]
    forward, backward = (2, 4) if form == "compiled" else (4, 10)
    with flops.Counter() as own, FlopCounterMode(display=False) as products:
        y, _ = selective_scan(*inputs)
        assert own.total == forward * B * T * D * N
        y.sum().backward()
    assert own.total == (forward + backward) * B * T * D * N
    assert products.get_total_flops() == 0


def test_works_without_data():
    inputs = [x.to("meta").requires_grad_() for x in draw(70)]
    y, h = selective_scan(*inputs)
    (y.sum() + h.sum()).backward()
    assert all(x.grad.shape == x.shape for x in inputs)


def test_the_gated_scan_is_the_scan_between_softplus_and_a_gate():
    u, delta, A, B_, C, D_, z, bias, state = draw_gated(9)
    y, h = selective_scan_naive(u, F.softplus(delta + bias), A, B_, C, D_, state)
    want = y * z * torch.sigmoid(z), h
    torch.testing.assert_close(gated_selective_scan_naive(u, delta, A, B_, C, D_, z, bias, state), want)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 3e-6), (torch.bfloat16, 6e-3)], ids=str)
def test_gated_in_less_precision(dtype, limit):
    inputs = draw_gated(71, dtype=dtype)
    want = differentiated(gated_selective_scan_naive, *(x.double() for x in inputs))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        have = differentiated(gated_selective_scan, *inputs)
    assert (have[0].dtype, have[1].dtype) == (dtype, torch.float32)
    for name, x, y in zip(("y", "h", *GATED), have, want, strict=True):
        assert (x.double() - y).norm() < limit * y.norm(), name


def test_softplus_and_gates_far_from_zero():
    """Δ from e^−30 to 40, gates closed and open."""
    inputs = draw_gated(40, dtype=torch.float32)
    inputs[1] = torch.linspace(-30, 40, inputs[1].numel()).view_as(inputs[1])
    inputs[6] = 50 * inputs[6]
    want = differentiated(gated_selective_scan_naive, *(x.double() for x in inputs))
    for name, x, y in zip(("y", "h", *GATED), differentiated(gated_selective_scan, *inputs), want, strict=True):
        assert (x.double() - y).norm() < 1e-5 * y.norm(), name
