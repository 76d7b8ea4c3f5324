"""Synthesizer: factorized dense scores, which no official code has."""

import torch

from zoo.architectures.synthesizer import Synthesizer
from zoo.contract import LayerContext

from .mixers import drawn, vectors

B, L, T, D, H = 3, 13, 9, 12, 3


def build(*, causal=True, **options):
    return drawn(Synthesizer(LayerContext(width=D, length=L, causal=causal), heads=H, rank=2, **options))


def test_factorized_dense_scores_pair_every_a_with_every_b():
    """Section 3.2: column s of step t is A_{t, s // b} B_{t, s mod b}, for a length that b does not divide."""
    mixer, x = build(variant="factorized_dense", factor=3, causal=False), vectors(B, T, D)
    assert (mixer.scores_a.out_features, mixer.scores_b.out_features) == (5, 3)
    heads = []
    for h in range(H):
        q, v = (w(x)[..., 4 * h : 4 * h + 4] for w in (mixer.query, mixer.value))
        A, C = mixer.scores_a(q.relu()), mixer.scores_b(q.relu())
        S = torch.stack([A[..., s // 3] * C[..., s % 3] for s in range(T)], dim=-1)
        heads.append(S.softmax(-1) @ v)
    torch.testing.assert_close(mixer(x)[0], mixer.out(torch.cat(heads, -1)), rtol=1e-12, atol=1e-12)
