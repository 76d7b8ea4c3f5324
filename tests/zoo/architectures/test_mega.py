"""Mega: pieces and padding with and without chunks, length, both directions, initial values, hints, errors."""

import math

import pytest
import torch

from zoo.architectures.mega import ELEMENTWISE, Mega
from zoo.contract import LayerContext, Unsupported, state_bytes
from zoo.layers import moving_average
from zoo.ops import long_convolution, vandermonde

B, T, D = 3, 17, 4
KINDS = pytest.mark.parametrize(
    ("chunk", "activation", "bias"),
    [(-1, "softmax", "simple"), (-1, "laplace", "rotary"), (5, "softmax", "rotary"), (5, "laplace", "simple")],
)


def build(chunk=-1, activation="softmax", bias="simple", *, length=T + 4, causal=True):
    """A float64 mixer with random parameters, and inputs."""
    torch.manual_seed(0)
    options = {"chunk_size": chunk, "attention_activation": activation, "rel_pos_bias": bias}
    mixer = Mega(LayerContext(width=D, length=length, causal=causal), zdim=6, hdim=5, ndim=3, **options).double()
    for parameter in mixer.parameters():
        parameter.data += torch.randn_like(parameter)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def start(mixer):
    return mixer.init_state(B, device="cpu", dtype=torch.float64)


@KINDS
@pytest.mark.parametrize("cuts", [[1], [4, 5, 9], [2, 13], range(1, T)], ids=str)
def test_pieces_continue_exactly(continues, cuts, chunk, activation, bias):
    mixer, x = build(chunk, activation, bias)
    continues(mixer, x, cuts)


@KINDS
@pytest.mark.parametrize("steps", [1, 4])
def test_rows_of_a_padded_prefill_go_on_as_alone(steps, chunk, activation, bias):
    """NaN in masked steps leaves no trace; positions and chunks of a row count its valid steps only."""
    mixer, x = build(chunk, activation, bias)
    lengths, more = [T, 4, 0], torch.randn(B, steps, D, dtype=torch.float64)
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    y, state = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask, state=start(mixer))
    assert y.isfinite().all()
    further, after = mixer(more, state=state)
    for row, n in enumerate(lengths):
        want, alone = mixer(
            torch.cat([x[row, :n], more[row]])[None], state=mixer.init_state(1, device="cpu", dtype=x.dtype)
        )
        torch.testing.assert_close(y[row, :n], want[0, :n])
        torch.testing.assert_close(further[row], want[0, n:])
        torch.testing.assert_close(after["h"][row], alone["h"][0])
        used = int(alone["n"])
        assert int(after["n"][row]) == used
        for name in ("k", "v"):
            torch.testing.assert_close(after[name][row, :used], alone[name][0, :used])
            assert not after[name][row, used:].any()


def test_a_masked_single_step_keeps_the_state():
    for chunk in (-1, 5):
        mixer, x = build(chunk)
        _, before = mixer(x, state=start(mixer))
        _, after = mixer(x[:, :1], mask=torch.tensor([[True], [False], [False]]), state=before)
        torch.testing.assert_close(after["h"][1:], before["h"][1:], rtol=0, atol=0)
        torch.testing.assert_close(after["n"][1:], before["n"][1:])
        assert not torch.equal(after["h"][0], before["h"][0])


@pytest.mark.parametrize("causal", [True, False])
def test_gradients_equal_those_of_the_naive_ops(monkeypatch, causal):
    mixer, x = build(5, causal=causal)

    def gradients():
        y, state = mixer(x, state=start(mixer) if causal else None)
        total = y.square().sum() + (state["h"].square().sum() if causal else 0)
        return torch.autograd.grad(total, list(mixer.parameters()))

    fast = gradients()
    monkeypatch.setattr(vandermonde, "evaluate", vandermonde.evaluate_naive)
    monkeypatch.setattr(vandermonde, "accumulate", vandermonde.accumulate_naive)
    monkeypatch.setattr(moving_average, "convolve", long_convolution.convolve_naive)
    torch.testing.assert_close(gradients(), fast)


def test_state_with_chunks_has_one_size():
    for chunk, growing in ((5, False), (-1, True)):
        mixer, x = build(chunk)
        sizes = [state_bytes(mixer(x[:, :n], state=start(mixer))[1]) for n in (1, 8, T)]
        assert (sizes[1] - sizes[0] == 7 * B * (6 + 5) * 8) is growing
        assert (len(set(sizes)) == 1) is not growing


def test_length_ends_with_simple_positions_and_no_chunks_only():
    mixer, x = build(length=T)
    assert mixer.traits.length == "max"
    with pytest.raises(ValueError, match="mega: 18 steps exceed the 17"):
        mixer(torch.randn(1, T + 1, D, dtype=torch.float64))
    _, state = mixer(x, state=start(mixer))
    with pytest.raises(ValueError, match="exceed"):
        mixer(x[:, :1], state=state)
    for chunk, bias in ((5, "simple"), (-1, "rotary")):
        other, _ = build(chunk, bias=bias, length=3)
        assert other.traits.length == "any"
        assert other(x)[0].shape == x.shape
    assert Mega.traits.length == "max"


def test_both_ways_the_second_average_looks_ahead_and_padding_hides():
    mixer, x = build(5, causal=False)
    assert mixer.move.gamma.shape == (2 * D, 3)
    mask = torch.arange(T) < torch.tensor([T, 7, 0])[:, None]
    y, _ = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask)
    assert y.isfinite().all()
    torch.testing.assert_close(y[1, :7], mixer(x[1:2, :7])[0][0])
    with pytest.raises(Unsupported, match="bidirectional"):
        mixer(x, state=start(build()[0]))


def test_decays_that_saturate_stay_finite():
    """q = 1 − σ(δ) σ(α) rounds to 0 in float32 from 17 on; its logarithm must not be −∞."""
    mixer, x = build()
    mixer, x = mixer.float(), x.float().requires_grad_()
    mixer.move.delta.data.fill_(40)
    mixer.move.alpha.data.fill_(40)
    mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.float32))[0].sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in mixer.parameters() if p.grad is not None)


def test_initialisation():
    mixer = Mega(LayerContext(width=256, length=50))
    assert (mixer.zdim, mixer.hdim, mixer.move.gamma.shape) == (64, 512, (256, 16))
    beta = mixer.move.beta.detach()[..., 0]
    torch.testing.assert_close(beta.mean(0), torch.tensor([1.0, -1.0] * 8), rtol=0, atol=0.01)
    assert beta[:, 0].std().item() == pytest.approx(0.02, rel=0.2)
    for parameter, std in (
        (mixer.move.alpha, 0.2),
        (mixer.move.delta, 0.2),
        (mixer.move.gamma, 1),
        (mixer.move.omega, 1),
        (mixer.gamma, 0.02),
        (mixer.rel_pos_bias.rel_pos_bias, 0.02),
        (mixer.v_proj.weight, 1 / 16),
    ):
        assert parameter.std().item() == pytest.approx(std, rel=0.25)
    assert not mixer.beta.any()


def test_laplace_is_the_normal_distribution_function():
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    normal = torch.distributions.Normal(math.sqrt(0.5), math.sqrt(1 / (4 * math.pi)))
    torch.testing.assert_close(ELEMENTWISE["laplace"](x), normal.cdf(x), rtol=0, atol=1e-5)


def test_only_matrices_decay():
    mixer, _ = build()
    free = {name for name, _ in mixer.named_parameters()} - set(mixer.param_overrides())
    assert free == {"v_proj.weight", "mx_proj.weight", "h_proj.weight"}
    assert all(hint.decay is False for hint in mixer.param_overrides().values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zdim": 0}, "at least 1"),
        ({"ndim": 0}, "at least 1"),
        ({"zdim": 3, "rel_pos_bias": "rotary"}, "even zdim"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"attention_activation": "relu"}, "known: softmax"),
        ({"rel_pos_bias": "alibi"}, "known: simple"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        Mega(LayerContext(width=D, length=T), **options)


def test_works_without_data():
    for chunk in (-1, 5):
        with torch.device("meta"):
            mixer, x = Mega(LayerContext(width=D, length=T), chunk_size=chunk), torch.randn(B, T, D)
        for state in (None, mixer.init_state(B, device="meta", dtype=torch.float32)):
            for steps in (1, T):
                assert mixer(x[:, :steps], state=state)[0].shape == (B, steps, D)
