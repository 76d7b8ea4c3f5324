"""Hyena: pieces and padding, the length of its filters, the shared frequency, initial values, hints, errors."""

import math

import pytest
import torch

from zoo.architectures.hyena import Hyena
from zoo.contract import LayerContext, Unsupported

B, T, D = 3, 17, 4


def build(length=T, **options):
    """A float64 mixer with random parameters, and inputs."""
    torch.manual_seed(0)
    mixer = Hyena(LayerContext(width=D, length=length), filter_order=8, **options).double()
    for parameter in mixer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def start(mixer):
    return mixer.init_state(B, device="cpu", dtype=torch.float64)


@pytest.mark.parametrize(("order", "width"), [(2, 3), (3, 1), (4, 5)])
@pytest.mark.parametrize("cuts", [[1], [7, 9], range(1, T)], ids=str)
def test_pieces_continue_exactly(continues, cuts, order, width):
    mixer, x = build(order=order, short_filter_order=width)
    continues(mixer, x, cuts)


@pytest.mark.parametrize("steps", [1, 4])
def test_rows_of_a_padded_prefill_go_on_as_alone(steps):
    """NaN in masked steps leaves no trace, and each row goes on behind its own valid steps."""
    mixer, x = build(length=T + 4, order=3)
    lengths, more = [T, 5, 0], torch.randn(B, steps, D, dtype=torch.float64)
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    y, state = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask, state=start(mixer))
    assert y.isfinite().all()
    further, after = mixer(more, state=state)
    assert after["n"].tolist() == [n + steps for n in lengths]
    for row, n in enumerate(lengths):
        want, _ = mixer(torch.cat([x[row, :n], more[row]])[None])
        torch.testing.assert_close(y[row, :n], want[0, :n])
        torch.testing.assert_close(further[row], want[0, n:])


def test_the_length_is_part_of_the_function():
    """The first T steps of a filter built for 2T are not the filter built for T; longer inputs are refused."""
    short, x = build()
    long, _ = build(length=2 * T)
    own = {name: value for name, value in short.state_dict().items() if "pos_emb" not in name}
    long.load_state_dict(own, strict=False)
    assert (long(x)[0] - short(x)[0]).abs().max() > 1e-2
    with pytest.raises(ValueError, match="hyena: 18 steps exceed the 17"):
        short(torch.randn(1, T + 1, D, dtype=torch.float64))
    _, state = short(x, state=start(short))
    with pytest.raises(ValueError, match="exceed"):
        short(x[:, :1], state=state)


def test_one_frequency_for_all_sines():
    names = [name for name, _ in build(num_inner_mlps=2)[0].named_parameters()]
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


def test_hints_slow_the_filters_and_spare_them_decay():
    mixer, _ = build()
    hints = mixer.param_overrides()
    inside = {name for name, _ in mixer.named_parameters() if name.startswith("filter_fn")}
    assert {name for name, hint in hints.items() if hint.lr_max == 1e-3} == {n for n in inside if "implicit" in n}
    assert hints["filter_fn.pos_emb.z"].lr_max == 1e-5
    assert inside <= set(hints)
    assert all(hint.decay is False for hint in hints.values())
    assert not {"in_proj.weight", "out_proj.weight", "short_filter.weight"} & set(hints)


def test_filters_stay_float32_under_autocast():
    mixer, x = build()
    mixer, x = mixer.float(), x.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = mixer(x, state=mixer.init_state(B, device="cpu", dtype=torch.bfloat16))
        assert mixer.filter_fn(T).dtype is torch.float32
    assert state["z"].dtype is torch.float32
    torch.testing.assert_close(y.float(), mixer(x)[0], rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 1}, "order"),
        ({"emb_dim": 4}, "odd"),
        ({"emb_dim": 1}, "odd"),
        ({"short_filter_order": 0}, "short_filter_order"),
        ({"filter_order": 0}, "MLP"),
        ({"num_inner_mlps": -1}, "MLP"),
    ],
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        Hyena(LayerContext(width=D, length=T), **options)


def test_is_causal_only():
    with pytest.raises(Unsupported):
        Hyena(LayerContext(width=D, length=T, causal=False))


def test_works_without_data():
    with torch.device("meta"):
        mixer, x = Hyena(LayerContext(width=D, length=T)), torch.randn(B, T, D)
    for state in (None, mixer.init_state(B, device="meta", dtype=torch.float32)):
        for steps in (1, T):
            assert mixer(x[:, :steps], state=state)[0].shape == (B, steps, D)
