"""Linear attention: the chunked forms equal the loop, in outputs, final state and gradients."""

import pytest
import torch

from zoo.ops.linear_attention import linear_attention, recurrent, weighted_mean

from .conftest import assert_near, assert_near_float64, assert_same, differentiated

B, H, K, V = 2, 3, 5, 4
DECAYS = ["none", "head", "channel"]
BONUS = pytest.mark.parametrize("bonus", [False, True], ids=["after", "before with bonus"])


def draw(T, decay, *, state=True, bonus=False, scale=1.0, dtype=torch.float64, shared=1):
    """Each head of q and k for `shared` heads of the rest."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = {"q": normal(B, H // shared, T, K), "k": normal(B, H // shared, T, K), "v": normal(B, H, T, V)}
    if decay != "none":
        inputs["log_decay"] = -scale * normal(*((B, H, T) if decay == "head" else (B, H, T, K))).abs()
    if state:
        inputs["state"] = normal(B, H, K, V)
    if bonus:
        inputs["bonus"] = normal(H, K)
    return {name: x.to(dtype) for name, x in inputs.items()}


def named(form, inputs, **options):
    """A form as a function of its inputs in a row."""
    return lambda *x: form(**dict(zip(inputs, x, strict=True)), **options)


def assert_equals_the_loop(inputs, chunk=8):
    chunked = named(linear_attention, inputs, chunk=chunk)
    assert_same(chunked, named(recurrent, inputs), *inputs.values(), tolerance=1e-9)


@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize(("T", "chunk"), [(1, 8), (8, 8), (37, 1), (37, 8), (37, 64)])
@pytest.mark.parametrize("decay", DECAYS)
@BONUS
def test_chunked_equals_the_loop(decay, T, chunk, state, bonus):
    assert_equals_the_loop(draw(T, decay, state=state, bonus=bonus), chunk)


@pytest.mark.parametrize("T", [1, 37])
@pytest.mark.parametrize("decay", DECAYS)
@BONUS
def test_a_head_of_keys_may_serve_several_of_values(decay, T, bonus):
    inputs = draw(T, decay, bonus=bonus, shared=H)
    whole = {name: x.expand(-1, H, -1, -1) if name in ("q", "k") else x for name, x in inputs.items()}
    torch.testing.assert_close(recurrent(**whole), recurrent(**inputs))
    assert_equals_the_loop(inputs)


@pytest.mark.parametrize("decay", DECAYS)
def test_inputs_may_lie_in_memory_as_they_like(decay):
    """Time before heads, or channels before time: as projections and transposes leave them."""
    for swapped in ((1, 2), (2, -1)):
        moved = {n: x.transpose(*swapped).contiguous() for n, x in draw(37, decay).items()}
        assert_equals_the_loop({n: x.transpose(*swapped) for n, x in moved.items()})


@pytest.mark.parametrize("decay", ["head", "channel"])
@BONUS
def test_decays_of_minus_infinity_are_exact(decay, bonus):
    """Here and there, in single channels too, and all at once: outputs, state and every gradient."""
    inputs = draw(70, decay, bonus=bonus)
    log = inputs["log_decay"]
    log[torch.rand(log.shape, generator=torch.Generator().manual_seed(2)) < 0.1] = float("-inf")
    log[:, :, 21:23] = log[:, :, 63:65] = float("-inf")
    for chunk in (4, 64):
        assert_equals_the_loop(inputs, chunk)


@pytest.mark.parametrize("cut", [1, 29])
@pytest.mark.parametrize("decay", DECAYS)
@BONUS
def test_continuing_equals_one_pass(decay, cut, bonus):
    inputs = draw(37, decay, bonus=bonus)
    S, u = inputs.pop("state"), inputs.pop("bonus", None)
    whole, final = linear_attention(**inputs, state=S, chunk=8, bonus=u)
    outputs = []
    for start, stop in [(0, cut), *((t, t + 1) for t in range(cut, 37))]:
        part = {name: x[:, :, start:stop] for name, x in inputs.items()}
        o, S = linear_attention(**part, state=S, chunk=8, bonus=u)
        outputs.append(o)
    assert_near((torch.cat(outputs, 2), S), (whole, final), 1e-12)


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
    inputs = draw(70, decay, scale=scale, bonus=bonus, dtype=torch.float32)
    fast, naive = named(linear_attention, inputs), named(recurrent, inputs)
    assert_near_float64(fast, naive, *inputs.values(), limit=2e-5)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("T", [1, 40])
@BONUS
def test_bfloat16_keeps_a_float32_state(form, decay, T, bonus):
    inputs = draw(T, decay, bonus=bonus, dtype=torch.bfloat16)
    o, S = linear_attention(**inputs)
    assert (o.dtype, S.dtype) == (torch.bfloat16, torch.float32)
    exact, final = recurrent(**{name: x.double() for name, x in inputs.items()})
    assert_near([o], [exact], 0.03)
    assert_near([S], [final], 0.01)


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
    inputs = draw(300, decay, scale=scale, dtype=torch.float32, shared=shared)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        have = differentiated(named(linear_attention, inputs), *inputs.values())
    want = differentiated(named(recurrent, inputs), *(x.double() for x in inputs.values()))
    assert have[1].dtype is torch.float32
    for name, x, exact in zip(("o", "S", *inputs), have, want, strict=True):
        error = (x.double() - exact).norm() / exact.norm()
        assert 1e-5 < error < (0.02 if name == "log_decay" else 0.008), name


@pytest.mark.parametrize("decay", ["head", "channel"])
@BONUS
@pytest.mark.parametrize("T", [1, 21])
def test_a_decay_may_be_shared_by_the_batch(decay, T, bonus):
    """RWKV-5's is the same for all rows: it is not computed for each."""
    inputs = draw(T, decay, bonus=bonus)
    shared = {**inputs, "log_decay": inputs["log_decay"][:1]}
    whole = {**inputs, "log_decay": shared["log_decay"].expand_as(inputs["log_decay"])}
    for run in (recurrent, linear_attention):
        torch.testing.assert_close(run(**shared), run(**whole))


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("T", [1, 40])
def test_outputs_are_scaled(form, decay, T):
    inputs = draw(T, decay, dtype=torch.float32)
    o, S = linear_attention(**inputs)
    torch.testing.assert_close(linear_attention(**inputs, scale=0.3), (0.3 * o, S))


@pytest.mark.parametrize("decay", ["none", "head"])
@pytest.mark.parametrize("floor", [False, True])
@pytest.mark.parametrize("T", [1, 70])
def test_a_mean_is_a_ratio_of_sums(form, decay, floor, T):
    """Continued from a state; over no less than a floor."""
    x = draw(T, decay, dtype=torch.float32)
    z, least = torch.rand(B, H, K), 3 * torch.rand(B, H, T) if floor else None
    state = torch.cat([x["state"], z[..., None]], dim=-1)
    sums, S = recurrent(x["q"], x["k"], torch.cat([x["v"], torch.ones(B, H, T, 1)], dim=-1), x.get("log_decay"), state)
    weight = sums[..., -1:].abs() if least is None else torch.maximum(sums[..., -1:].abs(), least[..., None])
    have = weighted_mean(x["q"], x["k"], x["v"], 0.1, x["state"], z, log_decay=x.get("log_decay"), floor=least)
    want = sums[..., :-1] / (weight + 0.1), S[..., :-1], S[..., -1]
    torch.testing.assert_close(have, want, rtol=1e-4, atol=1e-4)
