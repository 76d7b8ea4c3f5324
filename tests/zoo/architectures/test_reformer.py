"""Reformer: shared-QK full attention where chunks hide nothing, hashing, leaks, padding, options."""

import pytest
import torch

from zoo.architectures.reformer import Reformer, factors
from zoo.contract import LayerContext

B, T, D, H = 2, 16, 12, 3


def build(*, causal=True, length=T, **options):
    torch.manual_seed(0)
    options = {"heads": H, "chunk": 4, "hashes": 2, **options}
    mixer = Reformer(LayerContext(width=D, length=length, causal=causal), **options).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def shared_qk(mixer, x):
    """Full attention with one projection for queries and keys; a step sees itself only where it sees no other."""
    q, v = (w(x).unflatten(-1, (mixer.heads, -1)).transpose(1, 2) for w in (mixer.query_key, mixer.value))
    scores = q @ (q / (q.square().sum(-1, keepdim=True) + 1e-6 * q.shape[-1]).sqrt()).mT
    T, itself = x.shape[1], torch.eye(x.shape[1], dtype=torch.bool)
    if mixer.causal:
        scores = scores.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), float("-inf"))
        itself[0, 0] = False
    elif T == 1:
        itself[0, 0] = False
    y = scores.masked_fill(itself, float("-inf")).softmax(-1) @ v
    return mixer.out(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("steps", "options"), [(T, {"chunk": T}), (5, {"chunk": 8}), (1, {}), (T, {"chunk": 8, "hashes": 1})]
)
def test_is_shared_qk_attention_when_a_step_sees_all(causal, steps, options):
    """In one chunk; and in two, as one looks back at the other and that one, on the ring, at the first."""
    mixer, x = build(causal=causal, buckets=2, **options)
    x = x[:, :steps]
    torch.testing.assert_close(mixer(x)[0], shared_qk(mixer, x), rtol=1e-10, atol=1e-10)


def test_hides_steps_of_far_chunks():
    mixer, x = build(causal=False)
    assert (mixer(x)[0] - shared_qk(mixer, x)).abs().max() > 1e-2


def test_the_causal_mask_leaks_through_the_hashes():
    """`leaky` is not modesty: a changed last step moves the borders of chunks, and so earlier outputs."""
    mixer, x = build(length=64, chunk=2)
    x = torch.randn(B, 64, D, dtype=torch.float64)
    moved = []
    for scale in (-1, 3, -5):
        other = torch.cat([x[:, :40], scale * x[:, 40:]], dim=1)
        moved.append((mixer(other)[0] - mixer(x)[0])[:, :40].abs().max().item())
    assert max(moved) > 1e-4


@pytest.mark.parametrize(
    "options", [{}, {"duplicates": False}, {"across_buckets": False}, {"before": 2, "after": 1}], ids=str
)
@pytest.mark.parametrize("causal", [True, False])
def test_padding_leaves_no_trace(causal, options):
    mixer, x = build(causal=causal, **options)
    for lengths in ([T, 6], [9, 0], [3, 13]):
        mask = torch.arange(T) < torch.tensor(lengths)[:, None]
        y = mixer(x, mask=mask)[0]
        assert y.isfinite().all()
        junk = mixer(torch.where(mask[..., None], x, float("nan")), mask=mask)[0]
        torch.testing.assert_close(junk, y, rtol=0, atol=0)
        for row, n in enumerate(lengths):
            if n:
                alone = mixer(x[row : row + 1, :n])[0]
                torch.testing.assert_close(y[row : row + 1, :n], alone, rtol=1e-9, atol=1e-9)


def test_rotations_are_drawn_once_and_load():
    mixer, x = build()
    other, _ = build()
    other.redraw(torch.Generator().manual_seed(9))
    assert (mixer(x)[0] - other(x)[0]).abs().max() > 1e-3
    other.load_state_dict(mixer.state_dict())
    torch.testing.assert_close(mixer(x)[0], other(x)[0], rtol=0, atol=0)
    mixer.reset_parameters(layer=0, depth=4)
    assert torch.equal(mixer.rotations, other.rotations)
    shared, _ = build(rotations_per_head=False)
    assert torch.equal(shared.rotations[0], shared.rotations[1])
    assert not torch.equal(mixer.rotations[0], mixer.rotations[1])


def test_number_of_buckets():
    """trax: twice the chunks; from 130 on two even factors, the first a power of two."""
    assert factors(None, 32, 64) == [2]
    assert factors(None, 256, 64) == [8]
    assert factors(None, 64 * 64, 64) == [128]
    assert factors(None, 65 * 64, 64) == [16, 8]
    assert factors([2, 6], 32, 64) == [2, 6]
    assert build(buckets=[2, 6], hashes=5)[0].rotations.shape == (H, D // H, 5, 4)


def test_initialisation():
    mixer = Reformer(LayerContext(width=64, length=T))
    mixer.reset_parameters(layer=0, depth=8)
    assert mixer.query_key.weight.std().item() == pytest.approx(1 / 8, rel=0.1)
    assert mixer.out.weight.std().item() == pytest.approx(1 / 32, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "does not divide into 5 heads"),
        ({"buckets": 3}, "even"),
        ({"buckets": []}, "even"),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"hashes": 0}, "hashes must be at least 1"),
        ({"before": -1}, "negative"),
        ({"duplicates": False, "after": 1}, "before=1 and after=0"),
    ],
)
def test_bad_options_fail_at_build(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_works_without_data():
    with torch.device("meta"):
        mixer = Reformer(LayerContext(width=D, length=T), heads=H, chunk=4)
        x, mask = torch.randn(B, 13, D), torch.ones(B, 13, dtype=torch.bool)
    for valid in (None, mask):
        y = mixer(x, mask=valid)[0]
        y.sum().backward()
        assert y.shape == x.shape
