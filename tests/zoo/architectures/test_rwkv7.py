"""RWKV-7's two mixers: against the naive recurrence, v_first, initialisation, parameter groups."""

import pytest
import torch

from zoo import Shape, build
from zoo.architectures import rwkv7
from zoo.architectures.rwkv7 import ChannelMix, TimeMix
from zoo.contract import Batch, LayerContext
from zoo.ops.delta_rule import dplr_naive

B, T, D = 3, 37, 12


def make(layer=1, **options):
    """A float64 mixer, every parameter random, and inputs."""
    torch.manual_seed(0)
    ranks = {"decay_lora": 2, "a_lora": 3, "v_lora": 4, "gate_lora": 5}
    mixer = TimeMix(
        LayerContext(width=D, length=T, layer=layer, depth=2), **{"head_size": 4, **ranks, **options}
    ).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def start(mixer, dtype=torch.float64):
    return mixer.init_state(B, device="cpu", dtype=dtype)


def naive(q, k, v, a, b, log_decay, state=None, *, floor=None):
    assert (log_decay >= floor).all()
    return dplr_naive(q, k, v, a, b, log_decay, state)


@pytest.mark.parametrize("layer", [0, 1])
def test_equals_the_naive_recurrence(monkeypatch, layer):
    """Outputs, state and gradients, from a state and under a mask."""
    mixer, x = make(layer)
    mask = torch.arange(T) < torch.tensor([T, 5, 0])[:, None]
    before = mixer(torch.randn_like(x), state=start(mixer))[1]
    first = torch.randn_like(x).requires_grad_()
    leaves = [*mixer.parameters(), *(value.detach().requires_grad_() for value in before.values())]
    before = dict(zip(before, leaves[-2:], strict=True))

    def run():
        shared_context = {"v_first": first} if layer else {}
        y, after = mixer(x, mask=mask, state=before, shared_context=shared_context)
        loss = y[mask].square().sum() + sum(value.square().sum() for value in after.values())
        return y[mask], after, torch.autograd.grad(loss, [*leaves, first] if layer else leaves)

    fast = run()
    monkeypatch.setattr(rwkv7, "dplr", naive)
    torch.testing.assert_close(fast, run())


def test_the_first_layer_leaves_its_v_and_later_ones_read_it():
    first, x = make(0)
    later, _ = make(1)
    shared_context = {}
    first(x, shared_context=shared_context)
    previous = torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]
    torch.testing.assert_close(shared_context["v_first"], first.value(torch.lerp(x, previous, first.x_v)))
    kept = shared_context["v_first"]
    y, _ = later(x, shared_context=shared_context)
    assert shared_context["v_first"] is kept
    assert (y - later(x)[0]).abs().max() > 1e-3
    torch.testing.assert_close(later(x)[0], later(x, shared_context={})[0])  # alone, its own v


def test_the_stack_passes_v_first_on():
    """Gradients of the first layer's v reach it through later layers, in both directions of an encoder too."""
    torch.manual_seed(0)
    shape = Shape(length=T, vocab=5, outputs=3, width=32, depth=2)
    for role in ("lm", "classify"):
        model = build("rwkv7", role, shape=shape, head_size=8)
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        model(Batch(inputs=torch.randint(5, (2, 9)))).square().sum().backward()
        inner = model.backbone.sublayers[2].inner
        for mixer in (inner,) if role == "lm" else (inner.ahead, inner.back):
            assert all(getattr(mixer, f"v{i}").grad.any() for i in range(3))
        assert not any("sublayers.0.inner.v0" in name for name, _ in model.named_parameters())


def test_a_key_of_zero_gives_finite_gradients():
    mixer, x = make()
    torch.nn.init.zeros_(mixer.key.weight)
    mixer(x)[0].sum().backward()
    assert all(p.grad.isfinite().all() for p in mixer.parameters())


@pytest.mark.parametrize(("layer", "depth"), [(0, 1), (0, 4), (3, 4)])
def test_time_mix_initialisation(layer, depth):
    N = 4
    mixer = TimeMix(LayerContext(width=D, length=T, layer=layer, depth=depth), head_size=N)
    r, s = (layer / (depth - 1) if depth > 1 else 0), 1 - layer / depth
    powers = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}
    for n in range(D):
        for c, power in powers.items():
            assert getattr(mixer, f"x_{c}")[0, 0, n].item() == pytest.approx(1 - (n / D) ** (power * s), abs=1e-5)
        linear, z = n / (D - 1) - 0.5, (n % N - (N - 1) / 2) / ((N - 1) / 2)
        z = z * abs(z)
        w0 = -6 + 6 * (n / (D - 1)) ** (1 + r**0.3) + 0.5 + 2.5 * z
        want = {"w0": w0, "a0": -0.19 + 0.3 * z + 0.4 * linear, "k_k": 0.71 - 0.1 * linear, "k_a": 1.02}
        want |= {"v0": 0.73 - 0.4 * linear} if layer else {}
        assert {name: getattr(mixer, name)[0, 0, n].item() for name in want} == pytest.approx(want, abs=1e-5)
    assert (mixer.r_k == torch.tensor(-0.04)).all()
    for c in "wavg" if layer else "wag":
        first, second = mixer.get_parameter(f"{c}1"), mixer.get_parameter(f"{c}2")
        assert not first.any()
        # 32 rows orthogonal in their 12 columns, with gain √(32/12)
        torch.testing.assert_close(second.T @ second, 0.01 * 32 / D * torch.eye(D))
    for name, gain in {"receptance": 1, "key": 0.1, "value": 1, "output": 0}.items():
        W = getattr(mixer, name).weight
        torch.testing.assert_close(W @ W.T, gain**2 * torch.eye(D))
    torch.testing.assert_close(mixer.ln_x.weight.detach(), torch.full((D,), ((1 + layer) / depth) ** 0.7))


@pytest.mark.parametrize(("width", "ranks"), [(64, (32, 32, 32, 32)), (768, (64, 64, 32, 128))])
def test_suggested_ranks(width, ranks):
    with torch.device("meta"):
        mixer = TimeMix(LayerContext(width=width, length=T, layer=1, depth=2))
    assert tuple(mixer.get_parameter(f"{c}1").shape[1] for c in "wavg") == ranks


def test_channel_mix_initialisation():
    mixer = ChannelMix(LayerContext(width=D, length=T, layer=1, depth=4), expand=4.0)
    torch.testing.assert_close(mixer.x_k.detach()[0, 0], 1 - (torch.arange(D) / D) ** (0.75**4))
    torch.testing.assert_close(mixer.key.weight.T @ mixer.key.weight, torch.eye(D))
    assert mixer.key.weight.shape == (4 * D, D)
    assert not mixer.value.weight.any()
    assert set(mixer.param_overrides()) == {"x_k"}


def test_hints():
    mixer, _ = make()
    hints = mixer.param_overrides()
    matrices = {f"{name}.weight" for name in ("receptance", "key", "value", "output")}
    assert set(hints) == {name for name, _ in mixer.named_parameters()} - matrices - {"ln_x.weight", "ln_x.bias"}
    assert all(hint.decay is False for hint in hints.values())
    assert {name: hint.lr_scale for name, hint in hints.items() if hint.lr_scale != 1} == {"w0": 2}
