"""Differential attention, by its equation."""

import math

import torch

from zoo.architectures.differential import DifferentialAttention
from zoo.contract import LayerContext

from .mixers import drawn, vectors


@torch.no_grad()
def test_shared_keys_and_values():
    """Heads 2i and 2i + 1 read key pair and value i; neighbouring queries of a head then share a key."""
    T, d, layer = 9, 3, 2
    mixer, x = drawn(DifferentialAttention(LayerContext(24, T, layer=layer), heads=4, kv_heads=2)), vectors(2, T, 24)
    q, k, v = mixer.q_proj(x), mixer.k_proj(x), mixer.v_proj(x)
    vectors_of_lambda = [mixer.lambda_q1 @ mixer.lambda_k1, mixer.lambda_q2 @ mixer.lambda_k2]
    start = 0.8 - 0.6 * math.exp(-0.3 * layer)
    strength = math.exp(vectors_of_lambda[0]) - math.exp(vectors_of_lambda[1]) + start
    later, heads = torch.ones(T, T, dtype=torch.bool).triu(1), []
    for h in range(4):
        maps = []
        for i in (2 * h, 2 * h + 1):
            a, b = q[..., i * d : (i + 1) * d], k[..., i // 2 * d : (i // 2 + 1) * d]
            maps.append((a @ b.mT / d**0.5).masked_fill(later, -torch.inf).softmax(-1))
        o = (maps[0] - strength * maps[1]) @ v[..., h // 2 * 2 * d : (h // 2 + 1) * 2 * d]
        o = o / (o.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mixer.subln.weight
        heads.append((1 - start) * o)
    torch.testing.assert_close(mixer(x)[0], mixer.out_proj(torch.cat(heads, -1)), rtol=1e-10, atol=1e-10)
