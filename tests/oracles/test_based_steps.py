"""Based where test_fla_recorded.py has nothing: attention with a width of values of its own, and the convolution."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.based import BaseConv, Based
from zoo.contract import LayerContext

B, T, D = 2, 13, 12


def random(mixer):
    torch.manual_seed(0)
    for parameter in mixer.double().parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x, weight = torch.randn(2, B, T, D, dtype=torch.float64)
    return mixer, x.requires_grad_(), weight


def gradients(y, x, weight, parameters):
    leaves = {"x": x, **parameters}
    return dict(zip(leaves, torch.autograd.grad((y * weight).sum(), list(leaves.values())), strict=True))


@pytest.mark.parametrize("causal", [True, False])
def test_pairs(oracle, causal):
    """Every weight written out as 1 + s + s²/2."""
    heads, d, head_dim = 2, 3, 5
    context = LayerContext(width=D, length=T, causal=causal)
    mixer, x, weight = random(Based(context, heads=heads, feature_dim=d, head_dim=head_dim))
    q, k, v = ((x @ getattr(mixer, f"{name}_proj").weight.T).view(B, T, heads, -1).transpose(1, 2) for name in "qkv")
    s = q @ k.transpose(-1, -2) / d**0.5
    weights = 1 + s + s**2 / 2
    weights = weights.tril() if causal else weights
    y = (weights / weights.sum(-1, keepdim=True)) @ v
    wanted, got = y.transpose(1, 2).reshape(B, T, -1) @ mixer.o_proj.weight.T, mixer(x)[0]
    proof = oracle("based", "the Taylor weights of every pair of steps")
    proof.outputs(got, wanted, 1e-9)
    named = dict(mixer.named_parameters())
    proof.gradients(gradients(got, x, weight, named), gradients(wanted, x, weight, named), 1e-8)


@pytest.mark.parametrize(("size", "expand", "bias"), [(3, 4, True), (1, 1, False), (5, 2, True)])
def test_convolution(oracle, size, expand, bias):
    mixer, x, weight = random(
        BaseConv(LayerContext(width=D, length=T), kernel_size=size, expand_proj=expand, use_bias=bias)
    )
    W, inner = mixer.conv1.weight[:, 0], expand * D // 2
    u = x @ mixer.in_proj.weight.T + (mixer.in_proj.bias if bias else 0)
    steps = []
    for t in range(T):
        seen = sum(W[:, size - 1 - j] * u[:, t - j, :inner] for j in range(min(size, t + 1)))
        steps.append((F.silu(seen) * u[:, t, inner:]) @ mixer.out_proj.weight.T + (mixer.out_proj.bias if bias else 0))
    proof, got, wanted = oracle("based", "BaseConv, step by step"), mixer(x)[0], torch.stack(steps, 1)
    proof.outputs(got, wanted, 1e-9)
    named = dict(mixer.named_parameters())
    proof.gradients(gradients(got, x, weight, named), gradients(wanted, x, weight, named), 1e-8)
