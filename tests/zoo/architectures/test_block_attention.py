"""NSA and MoBA: which blocks a query sees, read slowly, step by step."""

import pytest
import torch

from zoo.architectures.moba import MoBA
from zoo.architectures.nsa import NSA
from zoo.contract import LayerContext
from zoo.layers.blocks import means

B, T, SIZE = 2, 23, 4
CONTEXT = LayerContext(width=12, length=T)


def normal(heads):
    torch.manual_seed(heads)
    return torch.randn(B, heads, T, 3, dtype=torch.float64)


def test_moba_sees_its_own_block_and_the_most_alike_ones_before():
    mixer = MoBA(CONTEXT, heads=4, kv_heads=2, moba_chunk_size=SIZE, moba_topk=3)
    q, k = normal(4), normal(2)
    chosen = mixer.choose(q, k, torch.arange(T)[None])
    for b, h, t in torch.cartesian_prod(*map(torch.arange, (B, 4, T))).tolist():
        alike = [float(q[b, h, t] @ k[b, h // 2, SIZE * n : SIZE * (n + 1)].mean(0)) for n in range(t // SIZE)]
        best = sorted(range(len(alike)), key=lambda n: -alike[n])[:2]
        assert set(chosen[b, h, t].nonzero().flatten().tolist()) == {*best, t // SIZE}


def test_nsa_selects_the_first_the_last_two_and_the_most_probable_blocks():
    mixer = NSA(CONTEXT, heads=4, kv_heads=2, block_size=SIZE, block_counts=4)
    q, k, now = normal(4), normal(2), torch.arange(T)[None]
    past = SIZE * torch.arange(1, T // SIZE + 2) <= now[..., None] + 1
    selected = mixer.select(q, means(k, SIZE), past[:, None], now)
    for b, g, t in torch.cartesian_prod(*map(torch.arange, (B, 2, T))).tolist():
        complete, own = (t + 1) // SIZE, t // SIZE
        blocks = k[b, g, : SIZE * complete].unflatten(0, (complete, SIZE)).mean(1)
        p = sum((q[b, h, t] @ blocks.T / 3**0.5).softmax(-1) for h in (2 * g, 2 * g + 1))
        always = {0, max(own - 1, 0), own}
        rest = sorted(set(range(complete)) - always, key=lambda n: -float(p[n]))
        assert set(selected[b, g, t].nonzero().flatten().tolist()) == {*always, *rest[: 4 - len(always)]}


def test_moba_of_all_blocks_is_full_attention():
    torch.manual_seed(0)
    x, all_of_them = torch.randn(B, T, 12), MoBA(CONTEXT, moba_chunk_size=SIZE, moba_topk=6)
    one = MoBA(CONTEXT, moba_chunk_size=T, moba_topk=1)
    one.load_state_dict(all_of_them.state_dict())
    fewer = MoBA(CONTEXT, moba_chunk_size=SIZE, moba_topk=2)
    fewer.load_state_dict(all_of_them.state_dict())
    want = one(x)[0]
    torch.testing.assert_close(all_of_them(x)[0], want)
    torch.testing.assert_close(fewer(x)[0][:, : 2 * SIZE], want[:, : 2 * SIZE])
    assert not torch.isclose(fewer(x)[0][:, 3 * SIZE :], want[:, 3 * SIZE :]).all(-1).any()


@pytest.mark.parametrize(("step", "what"), [(SIZE - 1, "cmp"), (T - 1, "slc"), (T - 1, "win")])
def test_nsa_adds_three_branches_by_their_gates(step, what):
    """With the gates of the others shut, a value counts in one branch only: of its block's mean, or by itself."""
    torch.manual_seed(0)
    mixer = NSA(CONTEXT, block_size=SIZE, block_counts=3, window_size=2).double()
    q, k, now = normal(4), normal(1), torch.arange(T)[None]
    reached = {
        "cmp": lambda t: set(range(SIZE * ((t + 1) // SIZE))),
        "slc": lambda t: {s for s in range(t + 1) if s // SIZE in (0, t // SIZE - 1, t // SIZE)},
        "win": lambda t: {t - 1, t},
    }
    v = normal(1).requires_grad_()
    branch = mixer.branches(q, k, v, now, first=True)[["cmp", "slc", "win"].index(what)]
    (slope,) = torch.autograd.grad(branch[0, 0, step].sum(), v)
    assert set(slope[0, 0].abs().sum(-1).nonzero().flatten().tolist()) == reached[what](step)
