"""Linear attention: every weight written out, steps with nothing to average, padding, initial values."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.linear_transformer import LinearAttention
from zoo.contract import LayerContext, Unsupported

B, T, D = 3, 17, 12


def build(causal=True, **options):
    torch.manual_seed(0)
    mixer = LinearAttention(LayerContext(width=D, length=T, causal=causal), **options).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def start(mixer):
    return mixer.init_state(B, device="cpu", dtype=torch.float64)


@pytest.mark.parametrize("causal", [True, False])
def test_padding_and_pairs(causal):
    """Weights over valid pairs; rows of padding alone give finite outputs, even for NaN."""
    mixer, x = build(causal, heads=2, d_keys=5, d_values=3)
    mask = torch.arange(T) < torch.tensor([T, 6, 0])[:, None]
    y, _ = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask)
    assert y.isfinite().all()
    q, k, v = (
        project(x).view(B, T, 2, -1).transpose(1, 2)
        for project in (mixer.query_projection, mixer.key_projection, mixer.value_projection)
    )
    weights = ((F.elu(q) + 1) @ (F.elu(k) + 1).transpose(-1, -2)).masked_fill(~mask[:, None, None], 0)
    weights = weights.tril() if causal else weights
    want = mixer.out_projection((weights @ v / (weights.sum(-1, keepdim=True) + 1e-6)).transpose(1, 2).flatten(2))
    torch.testing.assert_close(y[mask], want[mask])


def test_a_padded_prefill_continues():
    mixer, x = build()
    lengths = [T, 6, 0]
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    _, state = mixer(x, mask=mask, state=start(mixer))
    y, _ = mixer(x[:, :1], state=state)
    for row, n in enumerate(lengths):
        whole = torch.cat([x[row, :n], x[row, :1]])[None]
        torch.testing.assert_close(y[row, 0], mixer(whole)[0][0, -1])


def test_features_that_vanish_give_zero():
    """φ(−80) is 0 in float32: nothing to average, and ε keeps 0/0 away, also from the gradient."""
    mixer, x = build(heads=1)
    mixer, x = mixer.float(), torch.full((1, T, D), -80.0, requires_grad=True)
    for projection in (mixer.query_projection, mixer.key_projection):
        torch.nn.init.eye_(projection.weight)
        torch.nn.init.zeros_(projection.bias)
    y, _ = mixer(x)
    torch.testing.assert_close(y, mixer.out_projection.bias.expand_as(y))
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


def test_a_bidirectional_one_refuses_a_state():
    mixer, x = build(causal=False)
    with pytest.raises(Unsupported):
        mixer(x, state=start(mixer))


def test_initialisation_and_state():
    mixer = LinearAttention(LayerContext(width=256, length=T))
    mixer.reset_parameters(layer=0, depth=8)
    for name, parameter in mixer.named_parameters():
        std = 0.0 if name.endswith("bias") else 1 / 16 / (4 if name.startswith("out") else 1)
        assert parameter.std().item() == pytest.approx(std, rel=0.05)
    state = mixer.init_state(B, device="cpu", dtype=torch.bfloat16)
    assert {name: (tuple(z.shape), z.dtype) for name, z in state.items()} == {
        "S": ((B, 4, 64, 64), torch.float32),
        "z": ((B, 4, 64), torch.float32),
    }


@pytest.mark.parametrize(
    ("options", "message"), [({"heads": 5}, "width 12"), ({"d_keys": 0}, "d_keys"), ({"eps": 0.0}, "eps")]
)
def test_rejects_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        LinearAttention(LayerContext(width=D, length=T), **options)
