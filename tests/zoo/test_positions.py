"""Absolute positions against their formulas."""

import math

import pytest
import torch

from zoo.positions import POSITIONS, Learned, NoPositions, Sinusoidal
from zoo.terms import Site, Unsupported

T, D = 6, 8


@pytest.mark.parametrize("width", [8, 7, 1])
def test_sinusoid_interleaves_sines_and_cosines(width):
    at = torch.tensor([[0, 1, 2], [7, 100, 5000]])
    x = torch.zeros(2, 3, width, dtype=torch.float64)
    found = Sinusoidal(Site(width=width, length=T))(x, at)
    for row in range(2):
        for step in range(3):
            for i in range(width):
                angle = at[row, step].item() / 10000 ** ((i - i % 2) / width)
                wanted = math.cos(angle) if i % 2 else math.sin(angle)
                assert found[row, step, i].item() == pytest.approx(wanted, abs=1e-12)


def test_sinusoid_is_exact_far_out_in_float32():
    at = torch.tensor([[1_000_003]])
    module = Sinusoidal(Site(width=D, length=T))
    single, double = module(torch.zeros(1, 1, D), at), module(torch.zeros(1, 1, D, dtype=torch.float64), at)
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-7)


def test_learned_adds_a_vector_per_position():
    module, x = Learned(Site(width=D, length=T)), torch.randn(2, 3, D)
    at = torch.tensor([[0, 1, 2], [3, 5, 4]])
    torch.testing.assert_close(module(x, at), x + module.table[at])
    assert module.table.shape == (T, D)


@pytest.mark.parametrize("at", [torch.arange(T + 1)[None], torch.tensor([[T]])], ids=["too long", "too far"])
def test_learned_ends_where_its_table_does(at):
    module = Learned(Site(width=D, length=T))
    with pytest.raises(Unsupported, match=f"end at {T}"):
        module(torch.zeros(1, at.shape[1], D), at)


def test_none_adds_nothing():
    x = torch.randn(1, T, D)
    assert NoPositions(Site(width=D, length=T))(x, torch.arange(T)[None]) is x


@pytest.mark.parametrize("name", POSITIONS)
def test_every_encoding_is_a_module_of_a_site(name):
    module, x = POSITIONS.resolve(name)(Site(width=D, length=T)), torch.randn(2, T, D)
    assert module(x, torch.arange(T).expand(2, T)).shape == x.shape
