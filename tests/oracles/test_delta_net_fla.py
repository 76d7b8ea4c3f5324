"""DeltaNet and Gated DeltaNet against flash-linear-attention's layers, rebuilt step by step in float64.

The official layers need Triton and a GPU. What is below follows fla/layers/{delta_net,gated_deltanet}.py and the
recurrence of fla/ops/{delta_rule,gated_delta_rule}/naive.py, time before heads and tokens one by one as there.
"""

import pytest
import torch
import torch.nn.functional as F

from zoo.contract import Site
from zoo.mixers.delta_net import DeltaNet
from zoo.mixers.gated_delta_net import GatedDeltaNet

B, T, D = 2, 33, 24


def short_conv(x, p, name, activation=True):
    """Causal depthwise convolution of (B, T, C), tap by tap."""
    weight, y = p[f"{name}.weight"], torch.zeros_like(x)
    kernel = weight.shape[-1]
    for t in range(T):
        for j in range(kernel):
            if t - j >= 0:
                y = y.index_add(1, torch.tensor([t]), (weight[:, 0, kernel - 1 - j] * x[:, t - j])[:, None])
    y = y + p.get(f"{name}.bias", 0)
    return y * y.sigmoid() if activation else y


def l2(x):
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def recurrence(q, k, v, beta, g):
    """(B, T, H, ·) each; q is scaled by 1/√K, the state decays before the key reads it."""
    S, outputs = q.new_zeros(B, q.shape[2], q.shape[3], v.shape[3]), []
    for t in range(T):
        S = S * torch.exp(g[:, t])[..., None, None]
        error = v[:, t] - torch.einsum("bhk,bhkv->bhv", k[:, t], S)
        S = S + torch.einsum("bhk,bhv->bhkv", k[:, t], beta[:, t, :, None] * error)
        outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t] / q.shape[-1] ** 0.5, S))
    return torch.stack(outputs, dim=1)


def output(o, p, x, eps=1e-5):
    o = o / torch.sqrt(o.pow(2).mean(-1, keepdim=True) + eps) * p["o_norm.weight"]
    if "g_proj.weight" in p:
        gate = (x @ p["g_proj.weight"].T).view(o.shape)
        o = o * gate * gate.sigmoid()
    return o.flatten(2) @ p["o_proj.weight"].T


def fla_delta_net(x, p, *, heads=4, conv=True, activation="silu", norm="l2", use_beta=True, negative=False):
    q, k, v = (x @ p[f"{name}_proj.weight"].T for name in "qkv")
    if conv:
        q, k = (short_conv(z, p, f"{n}_conv1d", activation == "silu") for z, n in ((q, "q"), (k, "k")))
        v = short_conv(v, p, "v_conv1d")
    else:
        q, k = (F.silu(z) if activation == "silu" else z for z in (q, k))
        v = F.silu(v)
    q, k, v = (z.view(B, T, heads, -1) for z in (q, k, v))
    then = {"relu": F.relu, "elu": lambda z: F.elu(z) + 1}.get(activation, lambda z: z)
    q, k = then(q), then(k)
    q, k = (l2(z) if norm == "l2" else z / z.sum(-1, keepdim=True) for z in (q, k))
    beta = torch.sigmoid(x @ p["b_proj.weight"].T) if use_beta else x.new_ones(B, T, heads)
    beta = 2 * beta if negative else beta
    return output(recurrence(q, k, v, beta, torch.zeros_like(beta)), p, x)


def fla_gated_delta_net(x, p, *, heads=4, value_heads=4, conv=True, negative=False):
    q, k, v = (x @ p[f"{name}_proj.weight"].T for name in "qkv")
    q, k, v = (short_conv(z, p, f"{n}_conv1d") if conv else F.silu(z) for z, n in ((q, "q"), (k, "k"), (v, "v")))
    q, k = (l2(z.view(B, T, heads, -1)).repeat_interleave(value_heads // heads, 2) for z in (q, k))
    v = v.view(B, T, value_heads, -1)
    beta = torch.sigmoid(x @ p["b_proj.weight"].T) * (2 if negative else 1)
    g = -p["A_log"].exp() * F.softplus(x @ p["a_proj.weight"].T + p["dt_bias"])
    return output(recurrence(q, k, v, beta, g), p, x)


def compare(mixer, reference, proof, **how):
    torch.manual_seed(0)
    mixer = mixer.double()
    for p in mixer.parameters():
        p.data = torch.randn_like(p) * p[0].numel() ** -0.5 if p.dim() > 1 else 0.5 * torch.randn_like(p)
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    parameters = dict(mixer.named_parameters())
    leaves = {"input": x, **parameters}
    got, want = mixer(x)[0], reference(x, parameters, **how)
    cotangent = torch.randn_like(got)
    gradients = [
        dict(zip(leaves, torch.autograd.grad((y * cotangent).sum(), list(leaves.values())), strict=True))
        for y in (got, want)
    ]
    proof.outputs(got, want, 1e-9)
    proof.gradients(*gradients, tolerance=1e-8)


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ({}, {}),
        (
            {"heads": 3, "expand_k": 0.5, "expand_v": 2.0, "use_gate": True, "conv_size": 3, "conv_bias": True},
            {"heads": 3},
        ),
        ({"allow_neg_eigval": True, "qk_activation": "identity"}, {"negative": True, "activation": "identity"}),
        (
            {"use_short_conv": False, "qk_activation": "elu", "qk_norm": "sum"},
            {"conv": False, "activation": "elu", "norm": "sum"},
        ),
        (
            {"use_beta": False, "qk_activation": "relu", "heads": 2},
            {"use_beta": False, "activation": "relu", "heads": 2},
        ),
        ({"use_short_conv": False}, {"conv": False}),
    ],
    ids=str,
)
def test_delta_net(oracle, options, how):
    proof = oracle("delta_net", "flash-linear-attention, DeltaNet (rebuilt step by step)")
    compare(DeltaNet(Site(width=D, length=T), **options), fla_delta_net, proof, **how)


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ({}, {}),
        (
            {"heads": 2, "value_heads": 6, "head_dim": 5, "expand_v": 1.2, "conv_size": 3, "conv_bias": True},
            {"heads": 2, "value_heads": 6},
        ),
        (
            {"use_gate": False, "use_short_conv": False, "allow_neg_eigval": True},
            {"conv": False, "negative": True},
        ),
    ],
    ids=str,
)
def test_gated_delta_net(oracle, options, how):
    proof = oracle("gated_delta_net", "flash-linear-attention, GatedDeltaNet (rebuilt step by step)")
    compare(GatedDeltaNet(Site(width=D, length=T), **options), fla_gated_delta_net, proof, **how)
