"""Hyena: the length of its filters, the shared frequency, initial values."""

import math

import torch

from zoo.architectures.hyena import Hyena
from zoo.contract import LayerContext

from .mixers import shaken, vectors

T, D = 17, 4


def test_the_length_is_part_of_the_function():
    """The first T steps of a filter built for 2T are not the filter built for T."""
    short, long = (shaken(Hyena(LayerContext(D, length), filter_order=8)) for length in (T, 2 * T))
    own = {name: value for name, value in short.state_dict().items() if "pos_emb" not in name}
    long.load_state_dict(own, strict=False)
    x = vectors(3, T, D)
    assert (long(x)[0] - short(x)[0]).abs().max() > 1e-2


def test_one_frequency_for_all_sines():
    names = [name for name, _ in Hyena(LayerContext(D, T), num_inner_mlps=2).named_parameters()]
    assert [name for name in names if "freq" in name] == ["filter_fn.implicit_filter.1.freq"]
    assert names.count("filter_fn.implicit_filter.6.weight") == 1
    assert "filter_fn.implicit_filter.6.bias" not in names


def test_initialisation():
    mixer = Hyena(LayerContext(width=16, length=10), emb_dim=5, w=2.0, order=3)
    z = mixer.filter_fn.pos_emb.z[0].detach()
    n = torch.arange(10.0)
    torch.testing.assert_close(z[:, 0], n / 9)
    for column, f in ((1, 1e-4), (2, 1.0)):
        torch.testing.assert_close(z[:, column], torch.cos(2 * math.pi * f * n / 10))
        torch.testing.assert_close(z[:, column + 2], -torch.sin(2 * math.pi * f * n / 10))
    deltas = mixer.filter_fn.modulation.deltas.flatten()
    torch.testing.assert_close(deltas, torch.linspace(math.log(0.01) / 1.5, math.log(0.01) / 0.3, 32))
    assert (mixer.filter_fn.implicit_filter[1].freq == 2).all()
    assert mixer.filter_fn.bias.shape == (32,)
    assert not any("deltas" in name or name.endswith(".t") for name, _ in mixer.named_parameters())


def test_filters_stay_float32_under_autocast():
    mixer = Hyena(LayerContext(D, T))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mixer.filter_fn(T).dtype is torch.float32
