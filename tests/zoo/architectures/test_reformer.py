"""Reformer: shared-QK full attention where chunks hide nothing, rotations, numbers of buckets."""

import pytest
import torch

from zoo.architectures.reformer import Reformer, factors
from zoo.contract import LayerContext

from .mixers import drawn, vectors

B, T, D, H = 2, 16, 12, 3


def build(*, causal=True, **options):
    context = LayerContext(width=D, length=T, causal=causal)
    return drawn(Reformer(context, heads=H, **{"chunk": 4, "hashes": 2, **options}))


def shared_qk(mixer, x):
    """Full attention with one projection for queries and keys; a step sees itself only where it sees no other."""
    q, v = (w(x).unflatten(-1, (mixer.heads, -1)).transpose(1, 2) for w in (mixer.query_key, mixer.value))
    scores = q @ (q / (q.square().sum(-1, keepdim=True) + 1e-6 * q.shape[-1]).sqrt()).mT
    T, itself = x.shape[1], torch.eye(x.shape[1], dtype=torch.bool)
    if mixer.causal:
        scores = scores.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), float("-inf"))
    itself[0, 0] = not mixer.causal and T > 1
    y = scores.masked_fill(itself, float("-inf")).softmax(-1) @ v
    return mixer.out(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("steps", "options"), [(T, {"chunk": T}), (5, {"chunk": 8}), (1, {}), (T, {"chunk": 8, "hashes": 1})]
)
def test_is_shared_qk_attention_when_a_step_sees_all(causal, steps, options):
    """In one chunk; and in two, as one looks back at the other and that one, on the ring, at the first."""
    mixer, x = build(causal=causal, buckets=2, **options), vectors(B, steps, D)
    torch.testing.assert_close(mixer(x)[0], shared_qk(mixer, x), rtol=1e-10, atol=1e-10)


def test_hides_steps_of_far_chunks():
    mixer, x = build(causal=False), vectors(B, T, D)
    assert (mixer(x)[0] - shared_qk(mixer, x)).abs().max() > 1e-2


def test_rotations_are_drawn_once_and_load():
    mixer, other, x = build(), build(), vectors(B, T, D)
    other.redraw(torch.Generator().manual_seed(9))
    assert (mixer(x)[0] - other(x)[0]).abs().max() > 1e-3
    other.load_state_dict(mixer.state_dict())
    torch.testing.assert_close(mixer(x)[0], other(x)[0], rtol=0, atol=0)
    mixer.reset_parameters(layer=0, depth=4)
    assert torch.equal(mixer.rotations, other.rotations)
    shared = build(rotations_per_head=False)
    assert torch.equal(shared.rotations[0], shared.rotations[1])
    assert not torch.equal(mixer.rotations[0], mixer.rotations[1])


def test_number_of_buckets():
    """trax: twice the chunks; from 130 on two even factors, the first a power of two."""
    assert factors(None, 32, 64) == [2]
    assert factors(None, 256, 64) == [8]
    assert factors(None, 64 * 64, 64) == [128]
    assert factors(None, 65 * 64, 64) == [16, 8]
    assert factors([2, 6], 32, 64) == [2, 6]
    assert build(buckets=[2, 6], hashes=5).rotations.shape == (H, D // H, 5, 4)
