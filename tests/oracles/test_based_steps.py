"""Based where test_recorded.py has nothing: attention with a width of values of its own, and the convolution."""

import pytest
import torch
import torch.nn.functional as F

from zoo.architectures.based import BaseConv, Based
from zoo.contract import LayerContext

from .compare import drawn, leaves, vectors

B, T, D = 2, 13, 12


@pytest.mark.parametrize("causal", [True, False])
def test_pairs(oracle, causal):
    """Every weight written out as 1 + s + s²/2."""
    torch.manual_seed(0)
    heads, d, head_dim = 2, 3, 5
    context, x = LayerContext(width=D, length=T, causal=causal), vectors(B, T, D)
    mixer = drawn(Based(context, heads=heads, feature_dim=d, head_dim=head_dim))
    q, k, v = ((x @ getattr(mixer, f"{name}_proj").weight.T).view(B, T, heads, -1).transpose(1, 2) for name in "qkv")
    s = q @ k.transpose(-1, -2) / d**0.5
    weights = 1 + s + s**2 / 2
    weights = weights.tril() if causal else weights
    y = (weights / weights.sum(-1, keepdim=True)) @ v
    want = y.transpose(1, 2).reshape(B, T, -1) @ mixer.o_proj.weight.T
    oracle("based", "the Taylor weights of every pair of steps").equal(
        mixer(x)[0], want, leaves(mixer, x=x), tolerance=1e-9
    )


@pytest.mark.parametrize(("size", "expand", "bias"), [(3, 4, True), (1, 1, False), (5, 2, True)])
def test_convolution(oracle, size, expand, bias):
    torch.manual_seed(0)
    context, x = LayerContext(width=D, length=T), vectors(B, T, D)
    mixer = drawn(BaseConv(context, kernel_size=size, expand_proj=expand, use_bias=bias))
    W, inner = mixer.conv1.weight[:, 0], expand * D // 2
    u = x @ mixer.in_proj.weight.T + (mixer.in_proj.bias if bias else 0)
    steps = []
    for t in range(T):
        seen = sum(W[:, size - 1 - j] * u[:, t - j, :inner] for j in range(min(size, t + 1)))
        steps.append((F.silu(seen) * u[:, t, inner:]) @ mixer.out_proj.weight.T + (mixer.out_proj.bias if bias else 0))
    proof = oracle("based", "BaseConv, step by step")
    proof.equal(mixer(x)[0], torch.stack(steps, 1), leaves(mixer, x=x), tolerance=1e-9)
