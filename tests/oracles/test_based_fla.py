"""Based: attention against flash-linear-attention's reference and a sum over pairs, its convolution step by step."""

import pytest
import torch
import torch.nn.functional as F

from zoo.contract import Site
from zoo.mixers.based import BaseConv, Based

B, T, D = 2, 13, 12


def random(mixer):
    torch.manual_seed(0)
    for parameter in mixer.double().parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x, weight = torch.randn(2, B, T, D, dtype=torch.float64)
    return mixer, x.requires_grad_(), weight


def gradients(y, x, weight, parameters):
    """By `backward`, as fla's feature map uses checkpoints that know no other way."""
    leaves = {"x": x, **parameters}
    for leaf in leaves.values():
        leaf.grad = None
    (y * weight).sum().backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("sizes", [(3, 5, 1e-12), (4, 16, 1e-12), (1, 1, 0.1)], ids=str)
def test_layer(oracle, causal, sizes):
    heads, d, eps = sizes
    official = pytest.importorskip("fla.layers.based").BasedLinearAttention
    options = {"feature_dim": d, "eps": eps}
    ours, x, weight = random(Based(Site(width=D, length=T, causal=causal), heads=heads, **options))
    theirs = official(hidden_size=D, num_heads=heads, num_key_value_heads=heads, causal=causal, **options).double()
    theirs.load_state_dict(ours.state_dict())
    proof = oracle("based", "flash-linear-attention, BasedLinearAttention.forward_reference")
    got, wanted = ours(x)[0], theirs.forward_reference(x)
    proof.outputs(got, wanted, 1e-9)
    named = (dict(layer.named_parameters()) for layer in (ours, theirs))
    proof.gradients(*(gradients(y, x, weight, p) for y, p in zip((got, wanted), named, strict=True)), 1e-8)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("heads", "d", "head_dim"), [(4, 16, None), (2, 3, 5)])
def test_pairs(oracle, causal, heads, d, head_dim):
    """Every weight written out as 1 + s + s²/2."""
    site = Site(width=D, length=T, causal=causal)
    mixer, x, weight = random(Based(site, heads=heads, feature_dim=d, head_dim=head_dim))
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
    mixer, x, weight = random(BaseConv(Site(width=D, length=T), kernel_size=size, expand_proj=expand, use_bias=bias))
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
