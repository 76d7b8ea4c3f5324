"""Linear attention: the chunked forms and the step equal the loop, in outputs, final state and gradients."""

import pytest
import torch

from zoo.ops import forms
from zoo.ops.linear_attention import linear_attention, recurrent, step, weighted_mean

from .nonfinite import assert_same_where_finite

B, H, K, V = 2, 3, 5, 4
DECAYS = ["none", "head", "channel"]
BONUS = pytest.mark.parametrize("bonus", [False, True], ids=["after", "before with bonus"])


@pytest.fixture(params=["compiled", "torch"])
def form(request, monkeypatch):
    """What computes in float32 and bfloat16; in float64 it is torch."""
    if request.param == "torch":
        monkeypatch.setattr(forms, "available", lambda: False)
    elif not forms.available():
        pytest.skip("needs numba")


def draw(T, decay, *, state=True, bonus=False, scale=1.0, dtype=torch.float64, seed=0, shared=1):
    """Each head of q and k for `shared` heads of the rest."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = {"q": normal(B, H // shared, T, K), "k": normal(B, H // shared, T, K), "v": normal(B, H, T, V)}
    shape = {"none": None, "head": (B, H, T), "channel": (B, H, T, K)}[decay]
    if shape is not None:
        inputs["log_decay"] = -scale * normal(*shape).abs()
    if state:
        inputs["state"] = normal(B, H, K, V)
    if bonus:
        inputs["bonus"] = normal(H, K)
    return {name: x.to(dtype).requires_grad_() for name, x in inputs.items()}


def outputs_and_gradients(form, inputs):
    o, S = form(**inputs)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in (o, S)]
    loss = sum((x * w).sum() for x, w in zip((o, S), weights, strict=True))
    return {"o": o, "S": S} | dict(
        zip(inputs, torch.autograd.grad(loss, list(inputs.values()), materialize_grads=True), strict=True)
    )


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max().clamp(min=1e-6)).item()


@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize("chunk", [1, 8, 64])
@pytest.mark.parametrize("T", [1, 2, 17, 37])
@pytest.mark.parametrize("decay", DECAYS)
@BONUS
def test_chunked_equals_the_loop(decay, T, chunk, state, bonus):
    inputs = draw(T, decay, state=state, bonus=bonus)
    want = outputs_and_gradients(recurrent, inputs)
    have = outputs_and_gradients(lambda **x: linear_attention(**x, chunk=chunk), inputs)
    for name in want:
        assert relative(have[name], want[name]) < 1e-9, name


@pytest.mark.parametrize("cut", [1, 7, 29])
@pytest.mark.parametrize("decay", DECAYS)
@BONUS
def test_continuing_equals_one_pass(decay, cut, bonus):
    T = 37
    inputs = draw(T, decay, bonus=bonus)
    state, u = inputs.pop("state"), inputs.pop("bonus", None)
    whole, final = linear_attention(**inputs, state=state, chunk=8, bonus=u)
    head = {name: x[:, :, :cut] for name, x in inputs.items()}
    o, S = linear_attention(**head, state=state, chunk=8, bonus=u)
    outputs = [o]
    for t in range(cut, T):
        o, S = step(**{name: x[:, :, t] for name, x in inputs.items()}, state=S, bonus=u)
        outputs.append(o[:, :, None])
    assert relative(torch.cat(outputs, 2), whole) < 1e-12
    assert relative(S, final) < 1e-12


@pytest.mark.parametrize("decay", DECAYS)
@BONUS
def test_the_loop_reads_as_the_equation(decay, bonus):
    x = draw(3, decay, bonus=bonus)
    a = torch.ones(B, H, 3, K, dtype=torch.float64)
    if decay != "none":
        log = x["log_decay"]
        a = (log if decay == "channel" else log[..., None]).exp().expand(B, H, 3, K)
    S = x["state"]
    for t in range(3):
        before, kv = S, x["k"][:, :, t, :, None] @ x["v"][:, :, t, None, :]
        S = torch.diag_embed(a[:, :, t]) @ S + kv
        read = before + torch.diag_embed(x["bonus"]) @ kv if bonus else S
        o = (read.transpose(-1, -2) @ x["q"][:, :, t, :, None]).squeeze(-1)
        torch.testing.assert_close(recurrent(**x)[0][:, :, t], o, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("decay", ["head", "channel"])
@pytest.mark.parametrize("scale", [1e-3, 20.0, 1e3])
@BONUS
def test_strong_decay_in_float32_stays_close_to_float64(form, decay, scale, bonus):
    exact = outputs_and_gradients(recurrent, draw(130, decay, scale=scale, bonus=bonus))
    single = outputs_and_gradients(linear_attention, draw(130, decay, scale=scale, bonus=bonus, dtype=torch.float32))
    for name, x in single.items():
        assert x.isfinite().all(), name
        assert relative(x.double(), exact[name]) < 2e-5, name


@pytest.mark.parametrize("decay", ["head", "channel"])
@BONUS
def test_decays_of_minus_infinity_are_exact(decay, bonus):
    """Here and there, in single channels too, and all at once: outputs, state and every gradient."""
    inputs = draw(70, decay, bonus=bonus)
    with torch.no_grad():
        log = inputs["log_decay"]
        log[torch.rand(log.shape, generator=torch.Generator().manual_seed(2)) < 0.1] = float("-inf")
        log[:, :, 21:23] = log[:, :, 63:65] = float("-inf")
    want = outputs_and_gradients(recurrent, inputs)
    for chunk in (4, 64):
        have = outputs_and_gradients(lambda chunk=chunk, **x: linear_attention(**x, chunk=chunk), inputs)
        for name in want:
            assert relative(have[name], want[name]) < 1e-9, name


@pytest.mark.parametrize("decay", ["head", "channel"])
def test_a_decay_of_minus_infinity_forgets_everything(decay):
    inputs = {name: x.detach() for name, x in draw(40, decay).items()}
    inputs["log_decay"][:, :, 21] = float("-inf")
    o, S = linear_attention(**inputs, chunk=16)
    after = {name: x[:, :, 21:] for name, x in inputs.items() if name != "state"}
    o_after, S_after = recurrent(**after)
    torch.testing.assert_close(o[:, :, 21:], o_after, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(S, S_after, rtol=1e-12, atol=1e-12)
    inputs["log_decay"].requires_grad_()
    linear_attention(**inputs, chunk=16)[0].sum().backward()
    assert inputs["log_decay"].grad.isfinite().all()


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("T", [1, 40])
@BONUS
def test_bfloat16_keeps_a_float32_state(form, decay, T, bonus):
    inputs = draw(T, decay, bonus=bonus, dtype=torch.bfloat16)
    o, S = linear_attention(**inputs)
    assert (o.dtype, S.dtype) == (torch.bfloat16, torch.float32)
    exact, final = recurrent(**{name: x.double() for name, x in inputs.items()})
    assert relative(o.double(), exact) < 0.03
    assert relative(S.double(), final) < 0.01


@BONUS
def test_autocast_does_not_lower_a_decay_per_channel(form, bonus):
    inputs = draw(40, "channel", dtype=torch.float32, bonus=bonus)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        o, S = linear_attention(**inputs)
    torch.testing.assert_close((o, S), linear_attention(**inputs), rtol=0, atol=0)


@pytest.mark.parametrize("decay", ["none", "head"])
@pytest.mark.parametrize("shared", [1, H])
@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_autocast_lowers_only_the_products_of_chunks(form, decay, shared, scale):
    """Rounding does not grow with the number of chunks: the state between them is carried in float32."""
    inputs = draw(600, decay, scale=scale, dtype=torch.float32, shared=shared)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        have = outputs_and_gradients(linear_attention, inputs)
    want = outputs_and_gradients(recurrent, {name: x.detach().double().requires_grad_() for name, x in inputs.items()})
    assert have["S"].dtype is torch.float32
    for name, exact in want.items():
        error = (have[name].double() - exact).norm() / exact.norm()
        assert 1e-5 < error < (0.02 if name == "log_decay" else 0.008), name


@pytest.mark.parametrize("T", [1, 2, 37])
@pytest.mark.parametrize("decay", DECAYS)
@BONUS
def test_a_head_of_keys_may_serve_several_of_values(decay, T, bonus):
    inputs = draw(T, decay, bonus=bonus, shared=H)
    want = outputs_and_gradients(recurrent, inputs)
    whole = {name: x.expand(-1, H, -1, -1) if name in ("q", "k") else x for name, x in inputs.items()}
    torch.testing.assert_close(recurrent(**whole), (want["o"], want["S"]))
    have = outputs_and_gradients(lambda **x: linear_attention(**x, chunk=8), inputs)
    for name in want:
        assert relative(have[name], want[name]) < 1e-9, name


@pytest.mark.parametrize("decay", DECAYS)
def test_inputs_may_lie_in_memory_as_they_like(decay):
    """Time before heads, or channels before time: as projections and transposes leave them."""
    inputs = draw(37, decay)
    want = outputs_and_gradients(recurrent, inputs)
    for swapped in ((1, 2), (2, -1)):
        moved = {n: x.detach().transpose(*swapped).contiguous().transpose(*swapped) for n, x in inputs.items()}
        moved = {n: x.requires_grad_() for n, x in moved.items()}
        have = outputs_and_gradients(lambda **x: linear_attention(**x, chunk=8), moved)
        for name in want:
            assert relative(have[name], want[name]) < 1e-9, name


@pytest.mark.parametrize("decay", DECAYS)
@BONUS
def test_gradcheck(decay, bonus):
    inputs = draw(5, decay, bonus=bonus)
    names = list(inputs)
    for form in (recurrent, lambda **x: linear_attention(**x, chunk=3)):
        assert torch.autograd.gradcheck(
            lambda *x, form=form: form(**dict(zip(names, x, strict=True))), list(inputs.values())
        )


@pytest.mark.parametrize("decay", ["head", "channel"])
@BONUS
@pytest.mark.parametrize("T", [1, 21])
def test_a_decay_may_be_shared_by_the_batch(decay, T, bonus):
    """RWKV-5's is the same for all rows: it is not computed for each."""
    inputs = draw(T, decay, bonus=bonus)
    shared = {**inputs, "log_decay": inputs["log_decay"][:1]}
    whole = {**inputs, "log_decay": shared["log_decay"].expand_as(inputs["log_decay"])}
    for form in (recurrent, linear_attention):
        torch.testing.assert_close(form(**shared), form(**whole))


PLANTED = pytest.mark.parametrize("planted", [float("nan"), float("inf"), -float("inf")])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("decay", DECAYS)
@PLANTED
@BONUS
def test_what_is_not_finite_stands_where_the_loop_has_it(form, decay, planted, bonus, dtype):
    """In outputs, the final state and gradients, wherever it is planted."""
    for name in draw(70, decay, bonus=bonus):
        inputs = {n: x.detach() for n, x in draw(70, decay, bonus=bonus, dtype=dtype, scale=0.1).items()}
        inputs[name].view(-1)[7] = planted  # of q, k, v and decays in the first chunk
        inputs = {n: x.requires_grad_() for n, x in inputs.items()}
        want, have = (outputs_and_gradients(f, inputs) for f in (recurrent, linear_attention))
        for n in want:
            assert_same_where_finite(have[n], want[n])


@PLANTED
def test_a_mean_of_what_is_not_finite_is_as_in_the_loop(form, planted):
    for name in ("q", "k", "v"):
        inputs = {n: x.detach().abs() for n, x in draw(70, "none", state=False, dtype=torch.float32).items()}
        inputs[name].view(-1)[7] = planted
        q, k, v = inputs.values()
        sums, _ = recurrent(q, k, torch.cat([v, torch.ones_like(v[..., :1])], dim=-1))
        o, _, _ = weighted_mean(q, k, v, 1e-3)
        torch.testing.assert_close(o, sums[..., :-1] / (sums[..., -1:].abs() + 1e-3), equal_nan=True)


@pytest.mark.parametrize("decay", ["none", "head"])
@pytest.mark.parametrize("floor", [False, True])
@pytest.mark.parametrize("T", [1, 70])
def test_a_mean_is_a_ratio_of_sums(form, decay, floor, T):
    """Continued from a state; over no less than a floor."""
    x = {name: x.detach() for name, x in draw(T, decay, dtype=torch.float32).items()}
    z, least = torch.rand(B, H, K), 3 * torch.rand(B, H, T) if floor else None
    state = torch.cat([x["state"], z[..., None]], dim=-1)
    sums, S = recurrent(x["q"], x["k"], torch.cat([x["v"], torch.ones(B, H, T, 1)], dim=-1), x.get("log_decay"), state)
    weight = sums[..., -1:].abs() if least is None else torch.maximum(sums[..., -1:].abs(), least[..., None])
    o, S_, z_ = weighted_mean(x["q"], x["k"], x["v"], 0.1, x["state"], z, log_decay=x.get("log_decay"), floor=least)
    torch.testing.assert_close(
        (o, S_, z_), (sums[..., :-1] / (weight + 0.1), S[..., :-1], S[..., -1]), rtol=1e-4, atol=1e-4
    )
