"""Linformer: full attention when E and F are the identity, blind to padding, never causal."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.linformer import Linformer
from zoo.contract import LayerContext, Unsupported

N, D, H = 17, 12, 3
SHARING = ["none", "headwise", "key_value"]


def build(*, k=5, sharing="headwise", heads=H, length=N):
    torch.manual_seed(0)
    mixer = Linformer(LayerContext(width=D, length=length, causal=False), heads=heads, k=k, sharing=sharing).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return mixer


def inputs(T=N, seed=1):
    return torch.randn(2, T, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def head_by_head(mixer, x):
    """The paper's eq. 7, one head at a time."""
    heads = []
    for h in range(mixer.heads):
        rows = mixer.qkv.weight.view(3, mixer.heads, -1, D)[:, h]
        b_q, b_k, b_v = mixer.qkv.bias.view(3, mixer.heads, -1)[:, h]
        E = mixer.E[h % len(mixer.E), :, : x.shape[1]]
        G = E if mixer.F is None else mixer.F[h % len(mixer.F), :, : x.shape[1]]
        q, k, v = x @ rows[0].T + b_q, (E @ x) @ rows[1].T + b_k, (G @ x) @ rows[2].T + b_v  # biases after E and F
        heads.append((q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v)
    return mixer.out(torch.cat(heads, -1))


@pytest.mark.parametrize("T", [1, 4, N])
@pytest.mark.parametrize("sharing", SHARING)
def test_equals_the_equation(sharing, T):
    mixer, x = build(sharing=sharing), inputs(T)
    torch.testing.assert_close(mixer(x)[0], head_by_head(mixer, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sharing", SHARING)
def test_is_full_attention_when_nothing_is_compressed(sharing):
    mixer, x = build(k=N, sharing=sharing), inputs()
    with torch.no_grad():
        for matrix in (mixer.E, mixer.F):
            if matrix is not None:
                matrix.copy_(torch.eye(N))
    q, k, v = mixer.qkv(x).view(2, N, 3, H, -1).permute(2, 0, 3, 1, 4)
    full = mixer.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixer(x)[0], full, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("sharing", "matrices"), [("none", 2 * H), ("headwise", 2), ("key_value", 1)])
def test_sharing_sets_the_number_of_projections(sharing, matrices):
    mixer = build(sharing=sharing)
    projections = sum(p.numel() for name, p in mixer.named_parameters() if name in ("E", "F"))
    assert projections == matrices * 5 * N
    assert all(mixer.param_overrides()[name].decay for name in mixer.param_overrides())
    assert set(mixer.param_overrides()) == {name for name, _ in mixer.named_parameters() if name in ("E", "F")}


@pytest.mark.parametrize("sharing", SHARING)
def test_junk_in_padding_changes_nothing(sharing):
    mixer, x = build(sharing=sharing), inputs()
    mask = torch.ones(2, N, dtype=torch.bool)
    mask[0, 9:] = False
    junk = torch.where(mask[..., None], x, 100 * inputs(seed=2))
    y, z = mixer(x, mask=mask)[0], mixer(junk, mask=mask)[0]
    torch.testing.assert_close(y[mask], z[mask], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(y[:1, :9], mixer(x[:1, :9])[0], rtol=1e-10, atol=1e-10)
    assert (mixer(x)[0] - mixer(torch.where(mask[..., None], x, 0 * x))[0]).abs().max() > 1e-3


def test_every_parameter_learns():
    for sharing in SHARING:
        mixer = build(sharing=sharing)
        mixer(inputs())[0].square().sum().backward()
        assert all(p.grad.abs().max() > 0 for p in mixer.parameters())


def test_sees_both_ways():
    mixer, x = build(), inputs()
    changed = x.clone()
    changed[:, -1] += 1
    assert (mixer(x)[0] - mixer(changed)[0])[:, :-1].abs().max() > 1e-4


def test_initial_projections_are_bounded_as_in_the_official_code():
    mixer = Linformer(LayerContext(width=D, length=N, causal=False), heads=H, k=5)
    mixer.reset_parameters(layer=0, depth=2)
    bound = (3 / (5 + N)) ** 0.5
    assert 0.8 * bound < mixer.E.abs().max() <= bound


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "does not divide into 5 heads"),
        ({"k": N + 1}, f"k must lie in 1 .. {N}"),
        ({"k": 0}, "k must lie in 1"),
        ({"sharing": "layerwise"}, "'layerwise' is not one of none, headwise, key_value"),
    ],
)
def test_bad_options_fail_at_build(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_cannot_be_causal():
    with pytest.raises(Unsupported, match="Linformer"):
        Linformer(LayerContext(width=D, length=N, causal=True), heads=H, k=5)


def test_a_longer_sequence_is_refused():
    with pytest.raises(ValueError, match=f"at most {N}"):
        build()(inputs(N + 1))
