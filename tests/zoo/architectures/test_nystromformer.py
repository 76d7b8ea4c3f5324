"""Nyströmformer: exact where landmarks lose nothing, segments, pseudo-inverse, padding, errors."""

import pytest
import torch

from zoo.architectures.nystromformer import Nystromformer, landmarks
from zoo.contract import LayerContext, Unsupported

B, T, D, H = 2, 12, 8, 2


def build(**options):
    torch.manual_seed(0)
    options = {"heads": H, "num_landmarks": 4, "conv_kernel_size": 3, **options}
    mixer = Nystromformer(LayerContext(width=D, length=T, causal=False), **options).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def softmax_attention(mixer, x):
    """Full attention, and the convolution one head and step at a time."""
    q, k, v = (w(x).unflatten(-1, (H, -1)).transpose(1, 2) for w in (mixer.query, mixer.key, mixer.value))
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    if mixer.conv is not None:
        filters = mixer.conv.weight[:, 0, :, 0]
        reach = filters.shape[1] // 2
        for t in range(x.shape[1]):
            for i in range(-reach, reach + 1):
                if 0 <= t + i < x.shape[1]:
                    y[:, :, t] = y[:, :, t] + filters[:, i + reach, None] * v[:, :, t + i]
    return mixer.out(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("steps", [1, 3, 4])
@pytest.mark.parametrize("kernel", [None, 1, 5])
def test_short_sequences_have_full_attention(steps, kernel):
    mixer, x = build(conv_kernel_size=kernel)
    x = x[:, :steps]
    torch.testing.assert_close(mixer(x)[0], softmax_attention(mixer, x), rtol=1e-10, atol=1e-10)


def test_landmarks_that_lose_nothing_give_full_attention():
    """Each segment holds three equal steps, so its mean is one of them; the pseudo-inverse has converged."""
    mixer, x = build(conv_kernel_size=None, iterations=40)
    x = x[:, :4].repeat_interleave(3, dim=1)
    torch.testing.assert_close(mixer(x)[0], softmax_attention(mixer, x), rtol=1e-8, atol=1e-8)
    x = torch.randn(B, T, D, dtype=torch.float64)
    assert (mixer(x)[0] - softmax_attention(mixer, x)).abs().max() > 1e-2


@pytest.mark.parametrize("init_option", ["exact", "original"])
def test_the_iteration_inverts(init_option):
    mixer, _ = build(init_option=init_option, iterations=25)
    A = (torch.randn(B, H, 4, 4, dtype=torch.float64) + 2 * torch.eye(4)).softmax(-1)
    torch.testing.assert_close(mixer.inverse(A), torch.linalg.inv(A), rtol=1e-8, atol=1e-8)
    assert (build(init_option=init_option)[0].inverse(A) - torch.linalg.inv(A)).abs().max() > 1e-6


def test_only_the_exact_option_is_blind_to_the_batch():
    for option, same in (("exact", True), ("original", False)):
        mixer, x = build(init_option=option, iterations=2)
        assert torch.allclose(mixer(x)[0][:1], mixer(x[:1])[0], rtol=1e-12, atol=1e-12) == same


def test_segments_divide_the_valid_steps():
    z = torch.arange(10.0, dtype=torch.float64)[None, None, :, None].expand(2, 1, 10, 1)
    mask = torch.arange(10) < torch.tensor([[10], [6]])
    assert landmarks(z, 4).flatten().tolist()[:4] == [1, 3.5, 6, 8.5]  # 0 1 2 | 3 4 | 5 6 7 | 8 9
    assert landmarks(z, 4, mask)[1].flatten().tolist() == [0.5, 2, 3.5, 5]  # 0 1 | 2 | 3 4 | 5
    torch.testing.assert_close(landmarks(z, 5), landmarks(z, 5, torch.ones(2, 10, dtype=torch.bool)))


@pytest.mark.parametrize("lengths", [[T, 7], [3, 11], [4, 0]])
def test_padding_leaves_no_trace(lengths):
    mixer, x = build()
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    x = x.requires_grad_()
    y = mixer(x, mask=mask)[0]
    assert y.isfinite().all()
    junk = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask)[0]
    torch.testing.assert_close(junk[mask], y[mask], rtol=0, atol=0)
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()
    for row, n in enumerate(lengths):
        if n:
            torch.testing.assert_close(y[row : row + 1, :n], mixer(x[row : row + 1, :n])[0], rtol=1e-9, atol=1e-9)


def test_initialisation():
    mixer = Nystromformer(LayerContext(width=64, length=T, causal=False))
    mixer.reset_parameters(layer=0, depth=8)
    assert mixer.query.weight.std().item() == pytest.approx(1 / 8, rel=0.1)
    assert mixer.out.weight.std().item() == pytest.approx(1 / 32, rel=0.1)
    assert 0.8 * 65**-0.5 < mixer.conv.weight.abs().max() <= 65**-0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "does not divide into 3 heads"),
        ({"num_landmarks": 0}, "at least 1"),
        ({"conv_kernel_size": 4}, "odd"),
        ({"init_option": "fast"}, "'fast' is not one of exact, original"),
    ],
)
def test_bad_options_fail_at_build(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_cannot_be_causal():
    with pytest.raises(Unsupported, match="Nystromformer"):
        Nystromformer(LayerContext(width=D, length=T))


def test_works_without_data():
    with torch.device("meta"):
        mixer = Nystromformer(LayerContext(width=D, length=T, causal=False), heads=H, num_landmarks=4)
        x, mask = torch.randn(B, T, D), torch.ones(B, T, dtype=torch.bool)
    for valid in (None, mask):
        y = mixer(x, mask=valid)[0]
        y.sum().backward()
        assert y.shape == x.shape
