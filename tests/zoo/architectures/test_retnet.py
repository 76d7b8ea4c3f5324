"""Retention: its two forms, far positions, padding, decay and rotation, initial values."""

import dataclasses

import pytest
import torch

from zoo.architectures.retnet import Retention, log_gammas, rotate, row_sums
from zoo.contract import LayerContext, Unsupported

B, T, D = 3, 21, 12


def build(scale=0.5, **options):
    torch.manual_seed(0)
    mixer = Retention(LayerContext(width=D, length=T), **{"heads": 3, **options}).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def start(mixer):
    return mixer.init_state(B, device="cpu", dtype=torch.float64)


def test_forms_agree_but_for_epsilon():
    recurrent, x = build()
    parallel, _ = build(form="parallel")
    difference = (recurrent(x)[0] - parallel(x)[0]).abs().max()
    assert 1e-8 < difference < 1e-3
    recurrent.eps = parallel.eps = 0.0
    torch.testing.assert_close(recurrent(x)[0], parallel(x)[0], rtol=1e-9, atol=1e-9)


def test_forms_are_one_where_scores_are_small():
    """The sum of moduli is then below 1, and clamped to it."""
    recurrent, x = build(scale=0.05)
    parallel, _ = build(scale=0.05, form="parallel")
    torch.testing.assert_close(recurrent(x)[0], parallel(x)[0], rtol=1e-9, atol=1e-12)


def test_the_parallel_form_cannot_be_continued():
    mixer, x = build(form="parallel")
    assert mixer.traits == dataclasses.replace(Retention.traits, resumable=False)
    assert Retention.traits.resumable
    with pytest.raises(Unsupported, match="parallel"):
        mixer(x, state=start(mixer))


def test_padding_leaves_no_trace():
    """Not even NaN; rows continue from positions of their own."""
    mixer, x = build()
    lengths, more = [T, 5, 0], torch.randn(B, 4, D, dtype=torch.float64)
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    y, state = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask, state=start(mixer))
    assert y.isfinite().all()
    assert state["position"].tolist() == lengths
    then, _ = mixer(more, state=state)
    for row, n in enumerate(lengths):
        whole = torch.cat([x[row : row + 1, :n], more[row : row + 1]], 1)
        torch.testing.assert_close(torch.cat([y[row, :n], then[row]]), mixer(whole)[0][0])


@pytest.mark.parametrize("far", [10**4, 10**6])
def test_far_positions_keep_their_digits(far):
    """In float32: angles are made in float64, so scores depend on distances alone."""
    q, k = torch.randn(2, 1, 1, 8, 16)
    t = torch.arange(8)[None]
    near, there = (rotate(q, t + s) @ rotate(k, t + s).transpose(-1, -2) for s in (0, far))
    torch.testing.assert_close(near, there, rtol=0, atol=1e-4)


def test_decay_rotation_and_row_sums():
    torch.testing.assert_close(
        log_gammas(3, torch.device("cpu")).exp(), torch.tensor([31 / 32, 63 / 64, 127 / 128]).double()
    )
    gamma = log_gammas(2, torch.device("cpu")).exp()
    want = torch.stack([gamma**n for n in range(5)]).cumsum(0).T[None]
    torch.testing.assert_close(row_sums(torch.arange(5)[None], gamma.log()), want)
    x = torch.tensor([1.0, 0, 1, 0]).double().view(1, 1, 1, 4)
    turned = rotate(x, torch.tensor([[3]])).flatten()
    angles = torch.tensor([3.0, 3e-4]).double()
    torch.testing.assert_close(turned, torch.stack([angles.cos(), angles.sin()], -1).flatten())


def test_initialisation():
    mixer = Retention(LayerContext(width=64, length=T))
    mixer.reset_parameters(layer=0, depth=1)
    for name, weight in mixer.named_parameters():
        gain = 0.5 if name == "out_proj.weight" else 2**-2.5
        bound = gain * (6 / sum(weight.shape)) ** 0.5
        assert 0.95 * bound < weight.abs().max() <= bound


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "width 12"),
        ({"heads": 4}, "even"),
        ({"value_factor": 0.4}, "values 4 wide"),
        ({"gate_fn": "relu"}, "swish, gelu"),
        ({"form": "chunkwise"}, "recurrent, parallel"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        Retention(LayerContext(width=D, length=T), **{"heads": 3, **options})
