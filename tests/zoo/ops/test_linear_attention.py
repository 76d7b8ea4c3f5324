"""Linear attention: the chunked form and the step equal the loop, in outputs, final state and gradients."""

import pytest
import torch

from zoo.ops.linear_attention import linear_attention, recurrent, step

B, H, K, V = 2, 3, 5, 4
DECAYS = ["none", "head", "channel"]


def draw(T, decay, *, state=True, scale=1.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = {"q": normal(B, H, T, K), "k": normal(B, H, T, K), "v": normal(B, H, T, V)}
    shape = {"none": None, "head": (B, H, T), "channel": (B, H, T, K)}[decay]
    if shape is not None:
        inputs["log_decay"] = -scale * normal(*shape).abs()
    if state:
        inputs["state"] = normal(B, H, K, V)
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
def test_chunked_equals_the_loop(decay, T, chunk, state):
    inputs = draw(T, decay, state=state)
    want = outputs_and_gradients(recurrent, inputs)
    have = outputs_and_gradients(lambda **x: linear_attention(**x, chunk=chunk), inputs)
    for name in want:
        assert relative(have[name], want[name]) < 1e-9, name


@pytest.mark.parametrize("cut", [1, 7, 29])
@pytest.mark.parametrize("decay", DECAYS)
def test_continuing_equals_one_pass(decay, cut):
    T = 37
    inputs = draw(T, decay)
    state = inputs.pop("state")
    whole, final = linear_attention(**inputs, state=state, chunk=8)
    head = {name: x[:, :, :cut] for name, x in inputs.items()}
    o, S = linear_attention(**head, state=state, chunk=8)
    outputs = [o]
    for t in range(cut, T):
        o, S = step(**{name: x[:, :, t] for name, x in inputs.items()}, state=S)
        outputs.append(o[:, :, None])
    assert relative(torch.cat(outputs, 2), whole) < 1e-12
    assert relative(S, final) < 1e-12


@pytest.mark.parametrize("decay", DECAYS)
def test_the_loop_reads_as_the_equation(decay):
    x = draw(3, decay)
    a = torch.ones(B, H, 3, K, dtype=torch.float64)
    if decay != "none":
        log = x["log_decay"]
        a = (log if decay == "channel" else log[..., None]).exp().expand(B, H, 3, K)
    S = x["state"]
    for t in range(3):
        S = torch.diag_embed(a[:, :, t]) @ S + x["k"][:, :, t, :, None] @ x["v"][:, :, t, None, :]
        o = (S.transpose(-1, -2) @ x["q"][:, :, t, :, None]).squeeze(-1)
        torch.testing.assert_close(recurrent(**x)[0][:, :, t], o, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("decay", ["head", "channel"])
@pytest.mark.parametrize("scale", [1e-3, 20.0, 1e3])
def test_strong_decay_in_float32_stays_close_to_float64(decay, scale):
    exact = outputs_and_gradients(recurrent, draw(130, decay, scale=scale))
    single = outputs_and_gradients(linear_attention, draw(130, decay, scale=scale, dtype=torch.float32))
    for name, x in single.items():
        assert x.isfinite().all(), name
        assert relative(x.double(), exact[name]) < 2e-5, name


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
def test_bfloat16_keeps_a_float32_state(decay, T):
    inputs = draw(T, decay, dtype=torch.bfloat16)
    o, S = linear_attention(**inputs)
    assert (o.dtype, S.dtype) == (torch.bfloat16, torch.float32)
    exact, final = recurrent(**{name: x.double() for name, x in inputs.items()})
    assert relative(o.double(), exact) < 0.03
    assert relative(S.double(), final) < 0.01


@pytest.mark.parametrize("decay", ["head", "channel"])
def test_autocast_does_not_lower_a_decayed_recurrence(decay):
    inputs = draw(40, decay, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        o, S = linear_attention(**inputs)
    torch.testing.assert_close((o, S), linear_attention(**inputs), rtol=0, atol=0)


@pytest.mark.parametrize("decay", DECAYS)
def test_gradcheck(decay):
    inputs = draw(5, decay)
    names = list(inputs)
    for form in (recurrent, lambda **x: linear_attention(**x, chunk=3)):
        assert torch.autograd.gradcheck(
            lambda *x, form=form: form(**dict(zip(names, x, strict=True))), list(inputs.values())
        )
