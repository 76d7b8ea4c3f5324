"""RWKV-4 to 7: initial values, which depend on channel, layer and depth; and v_first of RWKV-7."""

import math

import pytest
import torch

from zoo import Shape, build
from zoo.architectures import rwkv4, rwkv5, rwkv6, rwkv7
from zoo.contract import Batch, LayerContext

from .mixers import drawn, vectors

T, D, N = 21, 12, 4
PLACES = pytest.mark.parametrize(("layer", "depth"), [(0, 1), (0, 4), (3, 4)])


def fresh(kind, layer, depth, **options):
    """A mixer reset, and how deep it lies: r from 0 to 1, s from 1 down."""
    mixer = kind(LayerContext(D, T, layer=layer, depth=depth), **options)
    if hasattr(mixer, "ln_x"):
        torch.nn.init.constant_(mixer.ln_x.bias, 1.0)
    mixer.reset_parameters(layer=layer, depth=depth)
    return mixer, (layer / (depth - 1) if depth > 1 else 0), 1 - layer / depth


def close(parameter, wanted):
    """Of a vector over channels."""
    torch.testing.assert_close(parameter.detach().flatten(), wanted, rtol=0, atol=1e-5)


def orthogonal(weight, gain):
    """Up to a gain, in its rows or columns, whichever are fewer."""
    square = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    torch.testing.assert_close(square.detach(), gain**2 * torch.eye(len(square)))


def group_norm(mixer, layer, depth):
    close(mixer.ln_x.weight, torch.full((D,), ((1 + layer) / depth) ** 0.7))
    assert not mixer.ln_x.bias.any()


channel = torch.arange(D)
share, linear, zigzag = channel / D, channel / (D - 1), (channel + 1) % 3 - 1.0


@PLACES
def test_rwkv4_time_mix(layer, depth):
    mixer, r, s = fresh(rwkv4.TimeMix, layer, depth)
    close(mixer.time_decay, -5 + 8 * linear ** (0.7 + 1.3 * r))
    close(mixer.time_first, math.log(0.3) + zigzag / 2)
    for c, wanted in {"k": share**s, "v": share**s + 0.3 * r, "r": share ** (s / 2)}.items():
        close(getattr(mixer, f"time_mix_{c}"), wanted)
    for name, gain in {"key": 0, "receptance": 0, "output": 0, "value": 1}.items():
        orthogonal(getattr(mixer, name).weight, gain)


@PLACES
def test_rwkv5_time_mix(layer, depth):
    mixer, r, s = fresh(rwkv5.TimeMix, layer, depth, head_size=N)
    close(mixer.time_decay, -6 + 5 * linear ** (0.7 + 1.3 * r))
    close(mixer.time_faaaa, r * (1 - linear) + 0.1 * zigzag)
    half = share ** (s / 2)
    for c, wanted in {"k": share**s, "v": share**s + 0.3 * r, "r": half, "g": half}.items():
        close(getattr(mixer, f"time_mix_{c}"), wanted)
    for name, gain in {"receptance": 1, "key": 0.1, "value": 1, "gate": 0.1, "output": 0}.items():
        orthogonal(getattr(mixer, name).weight, gain)
    group_norm(mixer, layer, depth)
    assert mixer.ln_x.eps == pytest.approx(64e-5)


@PLACES
def test_rwkv6_time_mix(layer, depth):
    mixer, r, s = fresh(rwkv6.TimeMix, layer, depth, head_size=N)
    close(mixer.time_decay, -6 + 5 * linear ** (0.7 + 1.3 * r))
    one, half = 1 - share**s, 1 - share ** (s / 2)
    for c, wanted in {"x": one, "w": one, "k": one, "v": one - 0.3 * r, "r": half, "g": half}.items():
        close(getattr(mixer, f"time_maa_{c}"), wanted)
    assert mixer.time_maa_w1.shape == (D, 160)
    assert mixer.time_decay_w1.shape == (D, 64)
    for first, second in ((mixer.time_maa_w1, mixer.time_maa_w2), (mixer.time_decay_w1, mixer.time_decay_w2)):
        assert not first.any()
        assert 0.009 < second.abs().max() <= 0.01
    orthogonal(mixer.output.weight, 0)
    orthogonal(mixer.key.weight, 0.1)


@PLACES
def test_rwkv7_time_mix(layer, depth):
    mixer, r, s = fresh(rwkv7.TimeMix, layer, depth, head_size=N)
    for c, power in {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}.items():
        close(getattr(mixer, f"x_{c}"), 1 - share ** (power * s))
    z = (channel % N - (N - 1) / 2) / ((N - 1) / 2)
    z = z * z.abs()
    close(mixer.w0, -6 + 6 * linear ** (1 + r**0.3) + 0.5 + 2.5 * z)
    close(mixer.a0, -0.19 + 0.3 * z + 0.4 * (linear - 0.5))
    close(mixer.k_k, 0.71 - 0.1 * (linear - 0.5))
    close(mixer.k_a, torch.full((D,), 1.02))
    close(mixer.r_k, torch.full((D,), -0.04))
    if layer:
        close(mixer.v0, 0.73 - 0.4 * (linear - 0.5))
    for c in "wavg" if layer else "wag":
        assert not mixer.get_parameter(f"{c}1").any()
        orthogonal(mixer.get_parameter(f"{c}2"), 0.1 * (32 / D) ** 0.5)
    for name, gain in {"receptance": 1, "key": 0.1, "value": 1, "output": 0}.items():
        orthogonal(getattr(mixer, name).weight, gain)
    group_norm(mixer, layer, depth)


@pytest.mark.parametrize(("layer", "depth"), [(0, 1), (3, 4)])
def test_channel_mixes(layer, depth):
    cases = [
        (rwkv4.ChannelMix, 4.0, "time_mix_k time_mix_r", lambda s: share**s, 2),  # gain √(out/in)
        (rwkv5.ChannelMix, 3.5, "time_mix_k time_mix_r", lambda s: share**s, 1),
        (rwkv6.ChannelMix, 3.5, "time_maa_k time_maa_r", lambda s: 1 - share**s, 1),
        (rwkv7.ChannelMix, 4.0, "x_k", lambda s: 1 - share ** (s**4), 1),
    ]
    for kind, expand, mixes, wanted, gain in cases:
        mixer, _, s = fresh(kind, layer, depth, expand=expand)
        for name in mixes.split():
            close(getattr(mixer, name), wanted(s))
        assert mixer.key.weight.shape == (int(expand * D), D)
        orthogonal(mixer.key.weight, gain)
        assert not mixer.value.weight.any()
        assert mixer.receptance is None or not mixer.receptance.weight.any()


@pytest.mark.parametrize(("width", "ranks"), [(64, (32, 32, 32, 32)), (768, (64, 64, 32, 128))])
def test_suggested_ranks(width, ranks):
    with torch.device("meta"):
        mixer = rwkv7.TimeMix(LayerContext(width=width, length=T, layer=1, depth=2))
    assert tuple(mixer.get_parameter(f"{c}1").shape[1] for c in "wavg") == ranks


def seventh(layer):
    ranks = {"decay_lora": 2, "a_lora": 3, "v_lora": 4, "gate_lora": 5}
    return drawn(rwkv7.TimeMix(LayerContext(D, T, layer=layer, depth=2), head_size=N, **ranks))


def test_the_first_layer_leaves_its_v_and_later_ones_read_it():
    first, later, x, shared = seventh(0), seventh(1), vectors(3, T, D), {}
    first(x, shared_context=shared)
    previous = torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]
    torch.testing.assert_close(shared["v_first"], first.value(torch.lerp(x, previous, first.x_v)))
    kept = shared["v_first"]
    y, _ = later(x, shared_context=shared)
    assert shared["v_first"] is kept
    assert (y - later(x)[0]).abs().max() > 1e-3
    torch.testing.assert_close(later(x)[0], later(x, shared_context={})[0])  # alone, its own v


@pytest.mark.parametrize("role", ["lm", "classify"])
def test_the_stack_passes_v_first_on(role):
    """Gradients of the first layer's v reach it through later layers, in both directions of an encoder too."""
    torch.manual_seed(0)
    model = build("rwkv7", role, shape=Shape(length=T, vocab=5, outputs=3, width=32, depth=2), head_size=8)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model(Batch(inputs=torch.randint(5, (2, 9)))).square().sum().backward()
    inner = model.backbone.sublayers[2].inner
    for mixer in (inner,) if role == "lm" else (inner.ahead, inner.back):
        assert all(getattr(mixer, f"v{i}").grad.any() for i in range(3))
    assert not any("sublayers.0.inner.v0" in name for name, _ in model.named_parameters())


def test_a_key_of_zero_gives_finite_gradients():
    mixer = seventh(1)
    torch.nn.init.zeros_(mixer.key.weight)
    mixer(vectors(3, T, D))[0].sum().backward()
    assert all(p.grad.isfinite().all() for p in mixer.parameters())
