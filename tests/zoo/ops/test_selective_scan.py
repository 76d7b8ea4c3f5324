"""The selective scan, chunked, compiled and in steps, equals the loop, in outputs, last state and gradients."""

import pytest
import torch
import torch.nn.functional as F

from zoo.ops import flops, forms
from zoo.ops import official as kernels
from zoo.ops.selective_scan import (
    chunked,
    gated_selective_scan,
    gated_selective_scan_naive,
    selective_scan,
    selective_scan_naive,
    step,
)

B, T, D, N = 2, 23, 3, 4


@pytest.fixture(params=["compiled loop", "chunked"], autouse=True)
def form(request, monkeypatch):
    if request.param == "chunked":
        monkeypatch.setattr(forms, "supports", lambda *tensors: False)
    return request.param


def test_which_form_ran(form):
    selective_scan(**draw())
    assert kernels.used["selective_scan"] == form


def draw(T=T, D=D, *, state=True, dtype=torch.float64):
    """Inputs with Δ > 0 and A < 0."""
    torch.manual_seed(0)
    inputs = {"u": torch.randn(B, T, D), "delta": torch.randn(B, T, D).abs(), "A": -torch.randn(D, N).exp()}
    inputs |= {"B": torch.randn(B, T, N), "C": torch.randn(B, T, N), "D": torch.randn(D)}
    if state:
        inputs["state"] = torch.randn(B, D, N)
    return {name: x.to(dtype).requires_grad_() for name, x in inputs.items()}


def outputs_and_gradients(form, inputs):
    y, h = form(**inputs)
    torch.manual_seed(1)
    dy, dh = torch.randn(y.shape), torch.randn(h.shape)
    loss = (y * dy).sum() + (h * dh).sum()
    return {"y": y, "h": h} | dict(zip(inputs, torch.autograd.grad(loss, list(inputs.values())), strict=True))


def test_the_loop_reads_as_the_equation():
    x = draw(3)
    h = x["state"]
    for t in range(3):
        a = torch.exp(torch.einsum("bd,dn->bdn", x["delta"][:, t], x["A"]))
        h = a * h + torch.einsum("bd,bn->bdn", (x["delta"] * x["u"])[:, t], x["B"][:, t])
        y = torch.einsum("bdn,bn->bd", h, x["C"][:, t]) + x["D"] * x["u"][:, t]
        torch.testing.assert_close(selective_scan_naive(**x)[0][:, t], y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize("chunk", [None, 1, 5, T])
@pytest.mark.parametrize("wide", [False, True], ids=["narrow", "wide"])
def test_chunked_equals_the_loop(monkeypatch, chunk, state, wide):
    """Both ways through a chunk: the diagonal scan, and step by step where a step is wide."""
    if wide:
        monkeypatch.setattr(chunked, "WIDE", 0)
    inputs = draw(state=state)
    want = outputs_and_gradients(selective_scan_naive, inputs)
    have = outputs_and_gradients(lambda **x: selective_scan(**x, chunk=chunk), inputs)
    torch.testing.assert_close(have, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("length", [2, 32, 33, 71])
@pytest.mark.parametrize("skip", [True, False])
def test_more_steps_and_channels_than_a_loop_takes_at_once(length, skip):
    inputs = draw(length, D=70)
    if not skip:
        del inputs["D"]
    want = outputs_and_gradients(selective_scan_naive, inputs)
    torch.testing.assert_close(outputs_and_gradients(selective_scan, inputs), want, rtol=1e-10, atol=1e-10)


def test_float32_and_strong_decays():
    """Δ A from −10⁻³ to −10³, where e^{Δ A} is 0 in float32."""
    inputs = draw(71, D=70)
    inputs["delta"] = (10 * inputs["delta"] ** 3).detach().requires_grad_()
    want = outputs_and_gradients(selective_scan_naive, inputs)
    single = {name: x.detach().float().requires_grad_() for name, x in inputs.items()}
    have = outputs_and_gradients(selective_scan, single)
    for name, x in have.items():
        assert (x.double() - want[name]).norm() < 2e-6 * want[name].norm(), name


def test_steps_without_delta_leave_the_state():
    """Δ = 0, as padding has it: the state is the one before."""
    inputs = draw(40, dtype=torch.float32)
    short = {name: x[:, :9] if x.ndim == 3 and name != "state" else x for name, x in inputs.items()}
    with torch.no_grad():
        inputs["delta"][:, 9:] = 0
        torch.testing.assert_close(selective_scan(**inputs)[1], selective_scan(**short)[1], rtol=1e-5, atol=1e-6)


def test_strided_inputs():
    inputs = draw(33)
    wide = {name: torch.stack([x, x], dim=-1)[..., 0] for name, x in inputs.items()}
    torch.testing.assert_close(selective_scan(**wide), selective_scan(**inputs))


def test_gradcheck():
    inputs = draw(5)
    for chunk in (None, 2, 5):
        assert torch.autograd.gradcheck(lambda *x, chunk=chunk: selective_scan(*x, chunk=chunk), list(inputs.values()))


def test_pieces_and_steps_continue_exactly():
    inputs = draw()
    state, fixed = inputs.pop("state"), {name: inputs.pop(name) for name in ("A", "D")}
    whole, last = selective_scan(**inputs, **fixed, state=state)
    y, h = selective_scan(**{name: x[:, :7] for name, x in inputs.items()}, **fixed, state=state, chunk=3)
    outputs = [y]
    for t in range(7, T):
        y, h = step(**{name: x[:, t] for name, x in inputs.items()}, **fixed, state=h)
        outputs.append(y[:, None])
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(h, last, rtol=1e-12, atol=1e-12)


def test_what_is_kept_for_the_backward_pass_is_a_state_per_chunk():
    inputs, chunk = draw(T=64, D=8), 16
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        y, _ = selective_scan(**inputs, chunk=chunk)
    states = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in saved if x.shape == (B, 8, N)}
    assert len(states) == 64 // chunk
    assert set(states.values()) == {B * 8 * N * 8}
    assert max(x.numel() for x in saved) < y.numel() * N


@pytest.mark.parametrize("length", [1, T])
def test_bfloat16_and_autocast_keep_a_float32_recurrence(length):
    inputs = {name: x.detach() for name, x in draw(length, dtype=torch.bfloat16).items()}
    exact, last = selective_scan_naive(**{name: x.double() for name, x in inputs.items()})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, h = selective_scan(**inputs)
    assert (y.dtype, h.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(h.double(), last, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(y.double(), exact, rtol=1e-2, atol=1e-2)


def test_counts_the_recurrence():
    inputs = draw()
    with flops.Counter() as counter:
        y, _ = selective_scan(**inputs)
        assert counter.by_name == {"selective_scan": 2 * B * T * D * N}
        y.sum().backward()
    assert counter.by_name == {"selective_scan": 6 * B * T * D * N}


def draw_gated(T, D=70, *, N=N, dtype=torch.float64):
    """Δ before softplus, some of it −∞ as padding has it; z is a view whose rows lie apart."""
    torch.manual_seed(0)
    inputs = {"u": torch.randn(B, T, D), "delta": 2 * torch.randn(B, T, D), "A": -torch.randn(D, N).exp()}
    inputs |= {"B": torch.randn(B, T, N), "C": torch.randn(B, T, N), "D": torch.randn(D)}
    inputs |= {"z": 3 * torch.randn(B, T, 2 * D)[..., D:], "bias": torch.randn(D), "state": torch.randn(B, D, N)}
    inputs["delta"][1, T - T // 3 :] = -float("inf")
    kept = {"A", "D", "bias", "state"}
    return {
        name: x.to(torch.promote_types(dtype, torch.float32) if name in kept else dtype).requires_grad_()
        for name, x in inputs.items()
    }


def test_the_gated_scan_is_the_scan_between_softplus_and_a_gate():
    x = draw_gated(9)
    delta = F.softplus(x["delta"] + x["bias"])
    y, h = selective_scan_naive(x["u"], delta, x["A"], x["B"], x["C"], x["D"], x["state"])
    torch.testing.assert_close(gated_selective_scan_naive(**x), (y * x["z"] * torch.sigmoid(x["z"]), h))


@pytest.mark.parametrize("length", [1, 2, 17, 71])
@pytest.mark.parametrize("N", [1, 4, 5])
def test_gated_equals_the_loop(length, N):
    inputs = draw_gated(length, 130, N=N)
    want = outputs_and_gradients(gated_selective_scan_naive, inputs)
    torch.testing.assert_close(outputs_and_gradients(gated_selective_scan, inputs), want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 3e-6), (torch.bfloat16, 6e-3)], ids=str)
def test_gated_in_less_precision(dtype, limit):
    inputs = draw_gated(71, dtype=dtype)
    exact = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    want = outputs_and_gradients(gated_selective_scan_naive, exact)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        have = outputs_and_gradients(gated_selective_scan, inputs)
    assert have["y"].dtype == dtype
    assert have["h"].dtype == torch.float32
    for name, x in have.items():
        assert (x.double() - want[name]).norm() < limit * want[name].norm(), name


def test_softplus_and_gates_far_from_zero():
    """Δ from e^−30 to 40, gates closed and open."""
    inputs = draw_gated(40, dtype=torch.float32)
    with torch.no_grad():
        inputs["delta"].copy_(torch.linspace(-30, 40, inputs["delta"].numel()).view_as(inputs["delta"]))
        inputs["z"].mul_(50)
    exact = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    want = outputs_and_gradients(gated_selective_scan_naive, exact)
    for name, x in outputs_and_gradients(gated_selective_scan, inputs).items():
        assert (x.double() - want[name]).norm() < 1e-5 * want[name].norm(), name
