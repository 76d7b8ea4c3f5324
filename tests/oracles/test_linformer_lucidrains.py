"""Linformer against the PyPI package linformer."""

import pytest
import torch

from zoo.architectures.linformer import Linformer
from zoo.contract import LayerContext

theirs = pytest.importorskip("linformer.linformer")

B, N, D, H, K = 2, 23, 32, 4, 7


@pytest.mark.parametrize("T", [N, 11])
@pytest.mark.parametrize("sharing", ["headwise", "key_value"])
def test_same_weights_give_the_same_outputs_and_gradients(oracle, sharing, T):
    torch.manual_seed(0)
    ours = Linformer(LayerContext(width=D, length=N, causal=False), heads=H, k=K, sharing=sharing)
    peer = theirs.LinformerSelfAttention(D, N, k=K, heads=H)
    for parameter in peer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.zeros_(ours.qkv.bias)  # theirs has none
    if sharing == "key_value":  # `share_kv` there shares the key and value weights as well
        peer.proj_v = peer.proj_k

    def to_ours(official):
        found = {f"out.{part}": official[f"to_out.{part}"] for part in ("weight", "bias")}
        found["qkv.weight"] = torch.cat([official[f"to_{name}.weight"] for name in "qkv"])
        tables = {"E": "proj_k", "F": "proj_v"}
        return found | {name: official[there].T[None] for name, there in tables.items() if there in official}

    proof = oracle("linformer", "linformer LinformerSelfAttention")
    proof.layers(ours, peer, torch.randn(B, T, D, requires_grad=True), renamed=to_ours, alone="qkv.bias")
