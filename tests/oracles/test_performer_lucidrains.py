"""Performer against the PyPI package performer-pytorch, whose feature map is transcribed from the official JAX code."""

import pytest
import torch

from zoo.architectures.performer import Performer
from zoo.contract import LayerContext

theirs = pytest.importorskip("performer_pytorch.performer_pytorch")

B, T, D, H = 2, 23, 32, 4


def pair(causal, kernel):
    """Our mixer, and their layer with random weights and the same random features."""
    torch.manual_seed(0)
    ours = Performer(LayerContext(width=D, length=T, causal=causal), heads=H, kernel=kernel)
    generalized = kernel == "relu"
    peer = theirs.SelfAttention(
        D, heads=H, dim_head=D // H, causal=causal, generalized_attention=generalized, qkv_bias=True
    )
    for parameter in peer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    peer.fast_attention.projection_matrix.copy_(ours.W)
    return ours, peer


def to_ours(official):
    found = {}
    for part in ("weight", "bias"):
        found[f"qkv.{part}"] = torch.cat([official[f"to_{name}.{part}"] for name in "qkv"])
        found[f"out.{part}"] = official[f"to_out.{part}"]
    return found


def compare(oracle, ours, peer, dtype=torch.float32):
    x = torch.randn(B, T, D, dtype=dtype, requires_grad=True)
    oracle("performer", "performer-pytorch SelfAttention").layers(ours, peer, x, renamed=to_ours)


def test_as_many_features_as_theirs():
    ours, peer = pair(False, "softmax")
    assert len(ours.W) == theirs.FastAttention(D // H).nb_features == peer.fast_attention.nb_features


@pytest.mark.parametrize(("causal", "kernel"), [(False, "softmax"), (False, "relu"), (True, "relu")])
def test_layer(oracle, causal, kernel):
    compare(oracle, *pair(causal, kernel))


def test_causal_softmax_without_epsilon(oracle, monkeypatch):
    """Their key maximum over the sequence cancels once ε is 0, in the features and in the normaliser."""
    features, attention = theirs.softmax_kernel, theirs.causal_linear_attention_noncuda
    monkeypatch.setattr(theirs, "softmax_kernel", lambda x, **options: features(x, **options, eps=0.0))
    ours, peer = pair(True, "softmax")
    ours.eps = 0.0
    peer.fast_attention.causal_linear_fn = lambda q, k, v: attention(q, k, v, eps=0.0)
    compare(oracle, ours, peer.double(), torch.float64)
