"""Performer: strictly causal, resumable, blind to padding, and softmax attention in the limit of many features."""

import math

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.performer import Performer, orthogonal_features
from zoo.contract import LayerContext, Unsupported

T, D = 19, 12
KERNELS = ["softmax", "relu"]


def build(*, causal=True, heads=3, scale=0.4, dtype=torch.float64, width=D, **options):
    torch.manual_seed(0)
    mixer = Performer(LayerContext(width=width, length=64, causal=causal), heads=heads, **options).to(dtype)
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return mixer


def inputs(B=2, dtype=torch.float64, seed=1):
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def start(mixer, B=2, dtype=torch.float64):
    return mixer.init_state(B, device="cpu", dtype=dtype)


def by_pairs(mixer, x, mask=None):
    """The same function with every weight φ(q_t)·φ(k_s) written out."""
    q, k, v = mixer.qkv(x).view(*x.shape[:2], 3, mixer.heads, -1).permute(2, 0, 3, 1, 4)
    valid = None if mask is None else mask[:, None, :, None]
    weights = mixer.query_features(q) @ mixer.key_features(k, valid).transpose(-1, -2)
    if mixer.causal:
        weights = weights.tril()
    return mixer.out((weights / weights.sum(-1, keepdim=True) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("causal", [True, False])
def test_equals_the_sum_over_pairs(causal, kernel):
    mixer, x = build(causal=causal, kernel=kernel), inputs().requires_grad_()
    parameters = [x, *mixer.parameters()]
    have, want = mixer(x)[0], by_pairs(mixer, x)
    torch.testing.assert_close(have, want, rtol=1e-10, atol=1e-10)
    weights = torch.randn_like(have)
    pairs = zip(*(torch.autograd.grad((y * weights).sum(), parameters) for y in (have, want)), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("t", [1, 8, T - 1])
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_the_future_does_not_reach_the_past(kernel, t, size):
    mixer, x = build(kernel=kernel), inputs()
    changed = x.clone()
    changed[:, t:] = size * inputs(seed=2)[:, t:]
    y, z = mixer(x)[0], mixer(changed)[0]
    assert (y - z)[:, :t].abs().max() <= 1e-10
    assert (y - z)[:, t:].abs().max() > 1e-3


def test_bidirectional_does_see_the_future():
    mixer, x = build(causal=False), inputs()
    changed = x.clone()
    changed[:, -1] += 1
    assert (mixer(x)[0] - mixer(changed)[0])[:, :-1].abs().max() > 1e-4


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("prefill", [0, 1, 7, T - 8, T])
def test_resumes_step_by_step_after_any_prefill(kernel, prefill):
    mixer, x = build(kernel=kernel), inputs()
    whole, final = mixer(x, state=start(mixer))
    torch.testing.assert_close(mixer(x)[0], whole, rtol=1e-12, atol=1e-12)
    state, outputs = start(mixer), []
    for piece in [x[:, :prefill]] * (prefill > 0) + [x[:, t : t + 1] for t in range(prefill, T)]:
        y, state = mixer(piece, state=state)
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-11, atol=1e-11)
    for name in ("S", "z"):
        torch.testing.assert_close(state[name], final[name], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("causal", [True, False])
def test_junk_in_padding_changes_nothing(causal, kernel):
    mixer, x = build(causal=causal, kernel=kernel), inputs(B=3)
    mask = torch.ones(3, T, dtype=torch.bool)
    mask[0, 11:], mask[1, :4], mask[2] = False, False, False  # right, left, everything
    junk = torch.where(mask[..., None], x, 100 * inputs(B=3, seed=2))
    state = start(mixer, 3) if causal else None
    (y, a), (z, b) = mixer(x, mask=mask, state=state), mixer(junk, mask=mask, state=state)
    torch.testing.assert_close(y[mask], z[mask], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(y[:1, :11], mixer(x[:1, :11])[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(y[1:2, 4:], mixer(x[1:2, 4:])[0], rtol=1e-10, atol=1e-10)
    if causal:
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    junk.requires_grad_()
    y = mixer(junk, mask=mask)[0]
    assert y.isfinite().all()
    y[mask].sum().backward()
    assert junk.grad.isfinite().all()
    assert junk.grad[~mask].abs().max() == 0


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [30.0, 80.0])
def test_large_keys_and_queries_stay_finite(causal, kernel, dtype, size):
    mixer = build(causal=causal, kernel=kernel, dtype=dtype)
    d = D // mixer.heads
    with torch.no_grad():  # queries and keys become x itself, `size` long in every head
        mixer.qkv.weight[: 2 * D] = torch.eye(D, dtype=dtype).repeat(2, 1)
        mixer.qkv.bias.zero_()
    x = F.normalize(inputs().view(2, T, -1, d), dim=-1).flatten(2) * size
    x = x.to(dtype).requires_grad_()
    y = mixer(x)[0]
    y.float().square().sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in mixer.parameters())


def test_a_key_along_a_long_row_of_w_cannot_overflow():
    mixer = build(heads=1, width=256, features=8, dtype=torch.float32)
    w = mixer.W[0]
    with torch.no_grad():
        mixer.W[0] *= 16 / w.norm()  # |w|²/2 = 128 > 88, where e^x leaves float32
    phi = mixer.key_features((w * 256**0.25).view(1, 1, 1, -1))
    assert phi.isfinite().all()
    assert phi.max() > 1e27


@pytest.mark.parametrize("causal", [True, False])
def test_approaches_softmax_attention_as_features_grow(causal):
    x = inputs()

    def error(m):
        total = 0.0
        for seed in range(4):
            mixer = build(causal=causal, heads=3, scale=0.1, features=m, eps=1e-12)
            mixer.redraw(torch.Generator().manual_seed(seed))
            q, k, v = mixer.qkv(x).view(2, T, 3, 3, -1).permute(2, 0, 3, 1, 4)
            exact = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
            exact = mixer.out(exact.transpose(1, 2).flatten(2))
            total += ((mixer(x)[0] - exact).norm() / exact.norm()).item()
        return total / 4

    errors = [error(m) for m in (4, 64, 1024, 16384)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 8 * errors[3]
    assert errors[3] < 0.004


def test_permuting_the_sequence_permutes_a_bidirectional_output():
    mixer, x = build(causal=False), inputs()
    order = torch.randperm(T, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(mixer(x[:, order])[0], mixer(x)[0][:, order], rtol=1e-10, atol=1e-10)
    causal = build()
    assert (causal(x[:, order])[0] - causal(x)[0][:, order]).abs().max() > 1e-3


@pytest.mark.parametrize(("m", "d"), [(3, 8), (8, 8), (21, 8)])
def test_features_are_orthogonal_in_blocks_with_independent_norms(m, d):
    W = orthogonal_features(m, d, generator=torch.Generator().manual_seed(0))
    assert W.shape == (m, d)
    norms = W.norm(dim=-1)
    assert norms.unique().numel() == m
    for block in (W / norms[:, None]).split(d):
        torch.testing.assert_close(block @ block.T, torch.eye(len(block), dtype=W.dtype), rtol=0, atol=1e-12)


def test_features_are_gaussian_row_by_row():
    generator = torch.Generator().manual_seed(0)
    W = torch.stack([orthogonal_features(3, 3, generator=generator) for _ in range(4000)])
    assert W.mean(0).abs().max() < 0.06
    for row in W.unbind(1):
        torch.testing.assert_close(torch.cov(row.T), torch.eye(3, dtype=W.dtype), rtol=0, atol=0.1)


def test_redraws_only_when_asked_and_saves_its_features():
    mixer, x = build(), inputs()
    W = mixer.W.clone()
    for mode in (True, False):
        mixer.train(mode)
        torch.testing.assert_close(mixer(x)[0], mixer(x)[0], rtol=0, atol=0)
    assert torch.equal(mixer.W, W)
    other = build()
    other.redraw(torch.Generator().manual_seed(5))
    assert not torch.equal(other.W, W)
    other.load_state_dict(mixer.state_dict())
    assert torch.equal(other(x)[0], mixer(x)[0])
    first, second = (other.redraw(torch.Generator().manual_seed(6)) or other.W.clone() for _ in range(2))
    assert torch.equal(first, second)


def test_state_is_float32_at_least_and_its_size_does_not_grow():
    mixer = build(dtype=torch.bfloat16)
    state = start(mixer, dtype=torch.bfloat16)
    for _ in range(2):
        _, state = mixer(inputs(dtype=torch.bfloat16), state=state)
        m, d = mixer.W.shape
        assert {name: (tuple(x.shape), x.dtype) for name, x in state.items()} == {
            "S": ((2, 3, m, d), torch.float32),
            "z": ((2, 3, m), torch.float32),
        }


@pytest.mark.parametrize("causal", [True, False])
def test_bfloat16_autocast_is_close_to_float32(causal):
    mixer, x = build(causal=causal, dtype=torch.float32), inputs(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = mixer(x)[0]
    exact = mixer(x)[0]
    assert (y.float() - exact).norm() / exact.norm() < 0.03


def test_default_number_of_features():
    assert build(heads=1).W.shape == (int(D * math.log(D)), D)
    assert build(heads=D).W.shape == (1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "does not divide into 5 heads"),
        ({"kernel": "cosine"}, "'cosine' is not one of softmax, relu"),
        ({"features": 0}, "at least 1"),
        ({"eps": 0.0}, "must be positive"),
    ],
)
def test_bad_options_fail_at_build(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_bidirectional_has_no_state_to_continue_from():
    mixer = build(causal=False)
    with pytest.raises(Unsupported, match="cannot continue"):
        mixer(inputs(), state=start(mixer))
