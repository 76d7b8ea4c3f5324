"""GLA: the recurrence, with everything that can stand around it; official names, initial values."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.gla import GLA
from zoo.contract import LayerContext, Unsupported

B, T, D = 3, 21, 16
OPTIONS = [
    {},
    {"heads": 2, "kv_heads": 1, "expand_k": 1.0, "expand_v": 2.0, "clamp_min": -0.05},
    {"use_short_conv": True, "conv_size": 3, "conv_bias": True, "feature_map": "sigmoid", "gate_fn": "relu"},
    {"use_output_gate": False, "elementwise_affine": False, "gate_logit_normalizer": 1.0, "gate_low_rank_dim": 2},
]
options = pytest.mark.parametrize("options", OPTIONS, ids=lambda o: ",".join(o) or "default")


def build(**options):
    torch.manual_seed(0)
    mixer = GLA(LayerContext(width=D, length=T), **options).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def start(mixer, batch=B):
    return mixer.init_state(batch, device="cpu", dtype=torch.float64)


def by_steps(
    mixer,
    x,
    *,
    heads=4,
    kv_heads=None,
    feature_map=None,
    gate_fn="swish",
    use_output_gate=True,
    gate_logit_normalizer=16,
    clamp_min=-float("inf"),
    **_,
):
    """The equations, one step at a time."""
    act = {"sigmoid": torch.sigmoid, "relu": torch.relu, "swish": F.silu, None: lambda z: z}
    group = heads // (kv_heads or heads)

    def project(name):
        y = x @ getattr(mixer, f"{name}_proj").weight.T
        conv = getattr(mixer, f"{name}_conv1d", None)
        if conv is not None:
            W = conv.weight.shape[-1]
            padded = F.pad(y, (0, 0, W - 1, 0))
            y = sum(conv.weight[:, 0, j] * padded[:, j : j + T] for j in range(W))
            y = F.silu(y if conv.bias is None else y + conv.bias)
        return y

    def split(z, n):
        return z.view(B, T, n, -1)

    q, k, v = split(act[feature_map](project("q")), heads), act[feature_map](project("k")), project("v")
    alpha = (F.logsigmoid(mixer.gk_proj(x)) / gate_logit_normalizer).clamp(min=clamp_min).exp()
    k, v, alpha = (
        torch.stack([split(z, heads // group)[:, :, h // group] for h in range(heads)], 2) for z in (k, v, alpha)
    )
    S, outputs = 0, []
    for t in range(T):
        S = alpha[:, t, :, :, None] * S + k[:, t, :, :, None] * v[:, t, :, None]
        outputs.append((q[:, t, :, :, None] * S).sum(2) / q.shape[-1] ** 0.5)
    o = torch.stack(outputs, 1)
    o = o / (o.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    o = (o if mixer.g_norm.weight is None else o * mixer.g_norm.weight).flatten(2)
    return (o * act[gate_fn](mixer.g_proj(x)) if use_output_gate else o) @ mixer.o_proj.weight.T, S


@options
def test_equals_the_recurrence(options):
    mixer, x = build(**options)
    x.requires_grad_()
    y, state = mixer(x, state=start(mixer))
    want, S = by_steps(mixer, x, **options)
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(state["S"], S)
    leaves = [x, *mixer.parameters()]
    both = [torch.autograd.grad(a.square().sum() + b.square().sum(), leaves) for a, b in ((y, state["S"]), (want, S))]
    torch.testing.assert_close(*both)


def test_loads_the_official_name_of_the_norm():
    mixer, _ = build()
    weights = {k.replace("g_norm.", "g_norm_swish_gate."): v for k, v in mixer.state_dict().items()}
    other = torch.nn.Sequential(GLA(LayerContext(width=D, length=T)).double())
    other.load_state_dict({f"0.{name}": value for name, value in weights.items()})
    torch.testing.assert_close(dict(other[0].state_dict()), dict(mixer.state_dict()))


def test_initialisation():
    mixer = GLA(LayerContext(width=256, length=T), use_short_conv=True)
    mixer.reset_parameters(layer=0, depth=8)
    assert mixer.q_proj.weight.std().item() == pytest.approx(256**-0.5, rel=0.05)
    assert mixer.gk_proj[1].weight.std().item() == pytest.approx(16**-0.5, rel=0.1)
    assert mixer.o_proj.weight.std().item() == pytest.approx(256**-0.5 / 4, rel=0.05)
    assert not mixer.gk_proj[1].bias.any()
    assert (mixer.g_norm.weight == 1).all()
    assert 0.4 < mixer.q_conv1d.weight.abs().max() <= 0.5


def test_is_causal_only():
    with pytest.raises(Unsupported):
        GLA(LayerContext(width=D, length=T, causal=False))
