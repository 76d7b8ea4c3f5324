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
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    # `share_kv` there shares the key and value weights as well: here only E = F is shared, so F is a copy of E.
    peer = theirs.LinformerSelfAttention(D, N, k=K, heads=H)
    E, F = ours.E, ours.E if ours.F is None else ours.F
    with torch.no_grad():
        ours.qkv.bias.zero_()  # theirs has none
        for i, name in enumerate(("to_q", "to_k", "to_v")):
            getattr(peer, name).weight.copy_(ours.qkv.weight[i * D : (i + 1) * D])
        peer.to_out.load_state_dict(ours.out.state_dict())
        peer.proj_k.copy_(E[0].T)
        peer.proj_v.copy_(F[0].T)
    x = torch.randn(B, T, D, requires_grad=True)
    have, want = ours(x)[0], peer(x)
    proof = oracle("linformer", "linformer LinformerSelfAttention")
    proof.outputs(have, want)
    weights = torch.randn_like(want)
    a = torch.autograd.grad((have * weights).sum(), [x, ours.qkv.weight, ours.out.weight, ours.out.bias, ours.E])
    parts = (peer.to_q, peer.to_k, peer.to_v)
    b = torch.autograd.grad(
        (want * weights).sum(),
        [x, *(part.weight for part in parts), peer.to_out.weight, peer.to_out.bias, peer.proj_k, peer.proj_v],
    )
    dE = b[6] + b[7] if sharing == "key_value" else b[6]
    names = ("x", "qkv.weight", "out.weight", "out.bias", "E")
    wanted = (b[0], torch.cat(b[1:4]), b[4], b[5], dE.T[None])
    proof.gradients(dict(zip(names, a, strict=True)), dict(zip(names, wanted, strict=True)))
