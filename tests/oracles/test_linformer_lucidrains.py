"""Linformer against the PyPI package linformer."""

import pytest
import torch

from zoo.architectures.linformer import Linformer
from zoo.contract import LayerContext

from .compare import leaves

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

    def to_ours(official):
        dE, dF = (official[name].T[None] for name in ("proj_k", "proj_v"))
        qkv = torch.cat([official[f"to_{name}.weight"] for name in "qkv"])
        found = {"x": official["x"], "qkv.weight": qkv}
        found |= {f"out.{part}": official[f"to_out.{part}"] for part in ("weight", "bias")}
        return found | ({"E": dE + dF} if ours.F is None else {"E": dE, "F": dF})

    own = leaves(ours, x=x)
    own.pop("qkv.bias")
    proof = oracle("linformer", "linformer LinformerSelfAttention")
    proof.equal(ours(x)[0], peer(x), own, leaves(peer, x=x), renamed=to_ours)
