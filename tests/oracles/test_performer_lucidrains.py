"""Performer against the PyPI package performer-pytorch, whose feature map is transcribed from the official JAX code."""

import pytest
import torch

from zoo.architectures.performer import Performer
from zoo.contract import LayerContext

theirs = pytest.importorskip("performer_pytorch.performer_pytorch")

B, T, D, H = 2, 23, 32, 4
KERNELS = ["softmax", "relu"]


def pair(causal, kernel):
    """Our mixer and their layer with the same random weights and the same random features."""
    torch.manual_seed(0)
    ours = Performer(LayerContext(width=D, length=T, causal=causal), heads=H, kernel=kernel)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    generalized = kernel == "relu"
    peer = theirs.SelfAttention(
        D, heads=H, dim_head=D // H, causal=causal, generalized_attention=generalized, qkv_bias=True
    )
    with torch.no_grad():
        for i, name in enumerate(("to_q", "to_k", "to_v")):
            getattr(peer, name).weight.copy_(ours.qkv.weight[i * D : (i + 1) * D])
            getattr(peer, name).bias.copy_(ours.qkv.bias[i * D : (i + 1) * D])
        peer.to_out.load_state_dict(ours.out.state_dict())
        peer.fast_attention.projection_matrix.copy_(ours.W)
    return ours, peer


def gradients(y, x, parameters):
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    return torch.autograd.grad((y * weights).sum(), [x, *parameters])


@pytest.fixture
def same(oracle):
    """Outputs and gradients of both, compared."""
    proof = oracle("performer", "performer-pytorch SelfAttention")

    def compare(ours, peer, y_ours, y_peer, x):
        proof.outputs(y_ours, y_peer)
        have = gradients(y_ours, x, ours.parameters())
        want = dict(
            zip(
                ["x", *(name for name, _ in peer.named_parameters())],
                gradients(y_peer, x, peer.parameters()),
                strict=True,
            )
        )
        for part in ("weight", "bias"):
            want[f"qkv.{part}"] = torch.cat([want.pop(f"to_{name}.{part}") for name in "qkv"])
            want[f"out.{part}"] = want.pop(f"to_out.{part}")
        proof.gradients(dict(zip(["x", *(name for name, _ in ours.named_parameters())], have, strict=True)), want)

    return compare


def inputs():
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(1)).requires_grad_()


def test_as_many_features_as_theirs():
    ours, peer = pair(False, "softmax")
    assert len(ours.W) == theirs.FastAttention(D // H).nb_features == peer.fast_attention.nb_features


@pytest.mark.parametrize("kernel", KERNELS)
def test_bidirectional(same, kernel):
    ours, peer = pair(False, kernel)
    x = inputs()
    same(ours, peer, ours(x)[0], peer(x), x)


def test_causal_relu(same):
    ours, peer = pair(True, "relu")
    x = inputs()
    same(ours, peer, ours(x)[0], peer(x), x)


def test_causal_softmax_without_epsilon(same, monkeypatch):
    """Their key maximum over the sequence cancels once ε is 0, in the features and in the normaliser."""
    features, attention = theirs.softmax_kernel, theirs.causal_linear_attention_noncuda
    monkeypatch.setattr(theirs, "softmax_kernel", lambda x, **options: features(x, **options, eps=0.0))
    ours, peer = pair(True, "softmax")
    ours, peer, x = ours.double(), peer.double(), inputs().double().detach().requires_grad_()
    ours.eps = 0.0
    peer.fast_attention.causal_linear_fn = lambda q, k, v: attention(q, k, v, eps=0.0)
    same(ours, peer, ours(x)[0], peer(x), x)
