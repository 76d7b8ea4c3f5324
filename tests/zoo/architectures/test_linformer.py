"""Linformer: the paper's equation under every sharing of its projections."""

import pytest
import torch

from zoo.architectures.linformer import Linformer
from zoo.contract import LayerContext

from .mixers import drawn, vectors

N, D, H = 17, 12, 3


def head_by_head(mixer, x):
    """The paper's eq. 7, one head at a time."""
    heads = []
    for h in range(mixer.heads):
        rows = mixer.qkv.weight.view(3, mixer.heads, -1, D)[:, h]
        b_q, b_k, b_v = mixer.qkv.bias.view(3, mixer.heads, -1)[:, h]
        E = mixer.E[h % len(mixer.E), :, : x.shape[1]]
        G = E if mixer.F is None else mixer.F[h % len(mixer.F), :, : x.shape[1]]
        q, k, v = x @ rows[0].T + b_q, (E @ x) @ rows[1].T + b_k, (G @ x) @ rows[2].T + b_v  # biases after E and F
        heads.append((q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v)
    return mixer.out(torch.cat(heads, -1))


@pytest.mark.parametrize(("sharing", "matrices"), [("none", 2 * H), ("headwise", 2), ("key_value", 1)])
def test_equals_the_equation(sharing, matrices):
    mixer = drawn(Linformer(LayerContext(D, N, causal=False), heads=H, k=5, sharing=sharing))
    assert sum(p.numel() for name, p in mixer.named_parameters() if name in ("E", "F")) == matrices * 5 * N
    for T in (1, 4, N):
        x = vectors(2, T, D)
        torch.testing.assert_close(mixer(x)[0], head_by_head(mixer, x), rtol=1e-10, atol=1e-10)
