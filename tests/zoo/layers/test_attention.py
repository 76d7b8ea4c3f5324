"""The equation of attention against torch and a loop, and the sizes of sliding-window attention."""

import torch
import torch.nn.functional as F

from zoo.contract import LayerContext
from zoo.layers.attention import Attention
from zoo.layers.local_attention import LocalAttention
from zoo.ops.attention import attend_naive


def test_the_equation_equals_torch_and_a_loop():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 1, 4, 5, dtype=torch.float64) for _ in range(3))
    found = attend_naive(q, k, v, causal=True)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(q, k, v, is_causal=True), rtol=1e-10, atol=1e-10)
    for t in range(4):
        p = [float(torch.exp(q[0, 0, t] @ k[0, 0, s] / 5**0.5)) for s in range(t + 1)]
        wanted = sum(p[s] * v[0, 0, s] for s in range(t + 1)) / sum(p)
        torch.testing.assert_close(found[0, 0, t], wanted, rtol=1e-10, atol=1e-10)


def test_local_attention_has_the_sizes_asked_for():
    context = LayerContext(width=256, length=75)
    bare = LocalAttention(context, bias=False, out_bias=False, head_width=16, kv_heads=1)
    assert {name: tuple(p.shape) for name, p in bare.named_parameters()} == {
        "q_proj.weight": (64, 256),
        "k_proj.weight": (16, 256),
        "v_proj.weight": (16, 256),
        "out_proj.weight": (256, 64),
    }
    assert LocalAttention(LayerContext(width=8, length=5)).window == 5
    assert LocalAttention(LayerContext(width=8, length=500)).window == 64


def test_options_add_the_parameters_they_need():
    """Checkpoints without them load as before."""
    plain = {"qkv.weight", "qkv.bias", "out.weight", "out.bias"}
    more = {"gate.weight", "gate.bias", "q_norm.weight", "k_norm.weight", "sinks"}
    context = LayerContext(width=8, length=5)
    assert Attention(context).state_dict().keys() == plain
    full = Attention(context, kv_heads=2, head_dim=6, qk_norm=True, gate=True, sinks=True)
    assert full.state_dict().keys() == plain | more
    sizes = {name: tuple(p.shape) for name, p in full.named_parameters() if name.endswith("weight")}
    assert (sizes["qkv.weight"], sizes["gate.weight"], sizes["out.weight"]) == ((48, 8), (24, 8), (8, 24))
