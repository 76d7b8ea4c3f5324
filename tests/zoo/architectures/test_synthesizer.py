"""Synthesizer: factorized dense scores, which no official code has; tables that do not learn."""

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


def test_fixed_tables_do_not_learn():
    mixer, x = build(variant="random", learned=False), vectors(B, T, D)
    assert "R" not in dict(mixer.named_parameters())
    assert mixer.state_dict()["R"].shape == (H, L, L)
    assert build(variant="factorized_random", learned=False).state_dict()["R2"].shape == (H, L, 2)
    first = mixer(x)[0]
    mixer.R.zero_()
    want = mixer.out(mixer.value(x).cumsum(1) / torch.arange(1, T + 1)[:, None])  # equal scores: the running mean
    torch.testing.assert_close(mixer(x)[0], want)
    assert (first - want).abs().max() > 1e-3
<<<<<<< HEAD
=======


def test_initialisation():
    mixer = Synthesizer(LayerContext(width=64, length=40), variant="random", dot="alpha")
    mixer.reset_parameters(layer=0, depth=8)
    bound = (6 / 80) ** 0.5
    assert 0.95 * bound < mixer.R.abs().max() <= bound
    assert mixer.alpha.item() == 0
    assert mixer.out.weight.std().item() == pytest.approx(1 / 32, rel=0.1)


def test_longer_sequences_are_refused():
    mixer, _ = build()
    with pytest.raises(ValueError, match=f"at most {L}"):
        mixer(torch.zeros(1, L + 1, D, dtype=torch.float64))
    _, state = mixer(torch.zeros(1, L, D, dtype=torch.float64), state=start(mixer, 1))
    with pytest.raises(ValueError, match=f"{L + 1} steps"):
        mixer(torch.zeros(1, 1, D, dtype=torch.float64), state=state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "does not divide into 5 heads"),
        ({"rank": 0}, "rank must be at least 1"),
        ({"factor": L + 1}, f"factor must lie in 1 .. {L}"),
    ],
)
def test_bad_options_fail_at_build(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@EVERY
def test_works_without_data(options):
    with torch.device("meta"):
        mixer, x = Synthesizer(LayerContext(width=D, length=L), heads=H, **options), torch.randn(B, T, D)
    for state in (None, mixer.init_state(B, device="meta", dtype=torch.float32)):
        y, _ = mixer(x, state=state)
        y.sum().backward()
        assert y.shape == x.shape
>>>>>>> w4
