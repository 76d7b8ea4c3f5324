"""Synthesizer: the paper's scores, causality, decoding, padding, options."""

import pytest
import torch

from zoo.architectures.synthesizer import Synthesizer
from zoo.contract import LayerContext

B, L, T, D, H = 3, 13, 9, 12, 3
VARIANTS = ["dense", "factorized_dense", "random", "factorized_random"]
OPTIONS = [{"variant": v} for v in VARIANTS] + [
    {"variant": "random", "dot": "alpha"},
    {"variant": "dense", "dot": "plus"},
]
EVERY = pytest.mark.parametrize("options", OPTIONS, ids=str)


def build(*, causal=True, **options):
    torch.manual_seed(0)
    mixer = Synthesizer(LayerContext(width=D, length=L, causal=causal), **{"heads": H, "rank": 2, **options}).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return mixer, torch.randn(B, T, D, dtype=torch.float64)


def start(mixer, batch=B):
    return mixer.init_state(batch, device="cpu", dtype=torch.float64)


def test_factorized_dense_scores_pair_every_a_with_every_b():
    """Section 3.2: column s of step t is A_{t, s // b} B_{t, s mod b}, for a length that b does not divide."""
    mixer, x = build(variant="factorized_dense", factor=3, causal=False)
    assert (mixer.scores_a.out_features, mixer.scores_b.out_features) == (5, 3)
    heads = []
    for h in range(H):
        q, v = (w(x)[..., 4 * h : 4 * h + 4] for w in (mixer.query, mixer.value))
        A, C = mixer.scores_a(q.relu()), mixer.scores_b(q.relu())
        S = torch.stack([A[..., s // 3] * C[..., s % 3] for s in range(T)], dim=-1)
        heads.append(S.softmax(-1) @ v)
    torch.testing.assert_close(mixer(x)[0], mixer.out(torch.cat(heads, -1)), rtol=1e-12, atol=1e-12)


@EVERY
def test_causal_and_not(options):
    mixer, x = build(**options)
    other = torch.cat([x[:, :4], 100 * torch.randn_like(x[:, 4:])], dim=1)
    torch.testing.assert_close(mixer(other)[0][:, :4], mixer(x)[0][:, :4], rtol=1e-10, atol=1e-10)
    both, _ = build(causal=False, **options)
    assert (both(other)[0] - both(x)[0])[:, :4].abs().max() > 1e-2


@EVERY
@pytest.mark.parametrize("sizes", [(T,), (1, 5, T - 6), (1,) * T], ids=str)
def test_pieces_continue_exactly(options, sizes):
    """Outputs and gradients, in pieces and single steps."""
    mixer, x = build(**options)
    whole, state, pieces = mixer(x)[0], start(mixer), []
    for piece in x.split(list(sizes), dim=1):
        y, state = mixer(piece, state=state)
        pieces.append(y)
    assert state["v"].shape == (B, H, T, D // H)
    assert state["n"].tolist() == [T] * B
    joined = torch.cat(pieces, 1)
    torch.testing.assert_close(joined, whole)
    a, b = (torch.autograd.grad(y.square().sum(), list(mixer.parameters())) for y in (joined, whole))
    torch.testing.assert_close(a, b)


@EVERY
@pytest.mark.parametrize("causal", [True, False])
def test_padding_leaves_no_trace(options, causal):
    mixer, x = build(causal=causal, **options)
    lengths = [T, 4, 0]
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    y = mixer(x, mask=mask)[0]
    assert y.isfinite().all()
    junk = torch.where(mask[..., None], x, float("nan"))
    torch.testing.assert_close(mixer(junk, mask=mask)[0][mask], y[mask], rtol=0, atol=0)
    for row, n in enumerate(lengths[:2]):
        torch.testing.assert_close(y[row : row + 1, :n], mixer(x[row : row + 1, :n])[0])


@EVERY
def test_rows_go_on_from_their_own_place(options):
    """After a padded prefill a row's next step stands behind its valid ones; padding's slots are used again."""
    mixer, x = build(**options)
    lengths, more = [T, 4, 0], torch.randn(B, 4, D, dtype=torch.float64)
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    _, state = mixer(x, mask=mask, state=start(mixer))
    y, state = mixer(more, state=state)
    assert state["n"].tolist() == [n + 4 for n in lengths]
    for row, n in enumerate(lengths):
        own = mixer(torch.cat([x[row : row + 1, :n], more[row : row + 1]], dim=1))[0]
        torch.testing.assert_close(y[row : row + 1], own[:, n:])


def test_fixed_tables_do_not_learn():
    mixer, x = build(variant="random", learned=False)
    assert "R" not in dict(mixer.named_parameters())
    assert mixer.state_dict()["R"].shape == (H, L, L)
    assert build(variant="factorized_random", learned=False)[0].state_dict()["R2"].shape == (H, L, 2)
    first = mixer(x)[0]
    mixer.R.zero_()
    want = mixer.out(mixer.value(x).cumsum(1) / torch.arange(1, T + 1)[:, None])  # equal scores: the running mean
    torch.testing.assert_close(mixer(x)[0], want)
    assert (first - want).abs().max() > 1e-3


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
        ({"variant": "sparse"}, "'sparse' is not one of dense"),
        ({"dot": "times"}, "'times' is not one of none"),
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
