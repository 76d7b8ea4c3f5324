"""LSH attention: the chunked form equals the naive one, for every option, with ragged rows."""

import pytest
import torch

from zoo.architectures.reformer import hash_buckets
from zoo.ops.kernel_log import record_kernels
from zoo.ops.lsh_attention import lsh_attention, lsh_attention_naive

from .conftest import assert_near_float64, assert_same

pytestmark = pytest.mark.usefixtures("form")
B, H, K, V = 3, 2, 5, 3
CASES = [  # T, chunk, rounds, valid steps of each row, options
    (16, 4, 2, None, {}),
    (13, 4, 3, None, {"causal": True}),
    (16, 4, 2, [16, 9, 3], {"causal": True}),
    (13, 4, 2, [13, 5, 0], {"scale": 0.3}),
    (13, 4, 2, [13, 5, 2], {"across_buckets": False}),
    (12, 4, 3, [12, 5, 2], {"duplicates": False}),
    (13, 4, 3, [13, 9, 4], {"duplicates": False, "across_buckets": False, "causal": True}),
    (13, 4, 2, [13, 7, 2], {"before": 2, "after": 1}),
    (13, 4, 1, [13, 7, 2], {"before": 0, "after": 1}),
    (4, 4, 2, None, {"duplicates": False}),
    (1, 4, 2, None, {}),
]


@pytest.fixture(params=[1, 2**17])
def scores(request, monkeypatch):
    """One chunk at a time, and all of these small cases at once."""
    monkeypatch.setattr("zoo.ops.lsh_attention.chunked.SCORES", request.param)


def test_which_form_ran(form):
    qk = torch.randn(B, H, 8, K)
    with record_kernels() as log:
        lsh_attention(qk, qk, torch.zeros(B, H, 1, 8, dtype=torch.long), chunk=4)
    assert log == {"lsh_attention": "compiled loop" if form == "compiled" else "torch"}


@pytest.mark.usefixtures("scores")
@pytest.mark.parametrize(("T", "chunk", "rounds", "lengths", "options"), CASES)
def test_equals_the_naive_form(T, chunk, rounds, lengths, options):
    torch.manual_seed(0)
    qk, v = torch.randn(B, H, T, K, dtype=torch.float64), torch.randn(B, H, T, V, dtype=torch.float64)
    buckets = hash_buckets(qk, torch.randn(H, K, rounds, 3, dtype=torch.float64), [2, 4])
    valid = None if lengths is None else torch.arange(T) < torch.tensor(lengths)[:, None]
    count = torch.ones(B, 1, T, 1) if valid is None else valid[:, None, :, None]
    forms = (
        lambda *x, f=f: f(*x, buckets, chunk=chunk, valid=valid, **options) * count
        for f in (lsh_attention, lsh_attention_naive)
    )
    assert_same(*forms, qk, v, tolerance=1e-9)


def test_an_infinite_value_is_one_wherever_it_is_seen():
    """Also by those beside empty slots of a short chunk."""
    torch.manual_seed(0)
    qk, buckets = torch.randn(1, 1, 10, K), torch.randint(4, (1, 1, 2, 10))
    for t in range(10):
        v = torch.randn(1, 1, 10, V)
        v[..., t, 1] = torch.inf
        y, exact = (f(qk, v, buckets, chunk=4) for f in (lsh_attention, lsh_attention_naive))
        torch.testing.assert_close(y, exact, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.01)], ids=["float32", "bfloat16"]
)
@pytest.mark.parametrize("options", [{"causal": True}, {"duplicates": False}], ids=str)
def test_lower_precision(dtype, tolerance, options):
    """Relative to float64 on the same numbers, of outputs and gradients as a whole; more than one part on a CPU."""
    torch.manual_seed(0)
    T, chunk, rounds = 500, 64, 2
    qk, v = torch.randn(2, 2, H, T, 32, dtype=dtype)
    buckets = hash_buckets(qk.double(), torch.randn(H, 32, rounds, 4, dtype=torch.float64), [8])

    def attend(*x):
        y = lsh_attention(*x, buckets, chunk=chunk, **options)
        assert y.dtype is x[0].dtype
        return y

    assert_near_float64(attend, attend, qk, v, limit=tolerance)


def test_steps_that_are_not_there_leave_no_trace():
    """13 steps in chunks of 4: the three behind them, and padding, have no gradient."""
    torch.manual_seed(0)
    qk, v = torch.randn(2, B, H, 13, K).unbind()
    valid = torch.arange(13) < torch.tensor([13, 9, 3])[:, None]
    buckets = hash_buckets(qk, torch.randn(H, K, 2, 3), [6])
    results = []
    for junk in (0.0, 1e3):
        inputs = [x.masked_fill(~valid[:, None, :, None], junk).requires_grad_() for x in (qk, v)]
        y = lsh_attention(*inputs, buckets, chunk=4, valid=valid) * valid[:, None, :, None]
        results.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_hashes_combine_as_digits():
    """Two factors: columns 0 of the rotations for the first, 1 and 2 for the second, each with its negative."""
    torch.manual_seed(0)
    x, rotations = torch.randn(B, H, 9, K), torch.randn(H, K, 2, 3)
    first, second = (hash_buckets(x, part, [2 * part.shape[-1]]) for part in rotations.split([1, 2], -1))
    assert torch.equal(hash_buckets(x, rotations, [2, 4]), first + 2 * second)
    assert torch.equal(hash_buckets(-x, rotations[..., :1], [2]), 1 - first)
    for b, h, t, r in [(0, 1, 3, 0), (2, 0, 8, 1)]:
        projected = [float(x[b, h, t] @ rotations[h, :, r, i]) for i in (1, 2)]
        assert second[b, h, r, t] == max(range(4), key=lambda i, p=projected: (p + [-z for z in p])[i])


def test_duplicates_are_counted_for_one_chunk_back_only():
    qk = torch.randn(B, H, 8, K)
    with pytest.raises(ValueError, match="one chunk back"):
        lsh_attention(qk, qk, torch.zeros(B, H, 1, 8, dtype=torch.long), chunk=2, before=2, duplicates=False)


def test_extreme_scores_stay_finite():
    qk = (1e4 * torch.randn(B, H, 16, K)).requires_grad_()
    buckets = hash_buckets(qk, torch.randn(H, K, 2, 2), [4])
    y = lsh_attention(qk, qk, buckets, chunk=4, causal=True)
    y.sum().backward()
    assert y.isfinite().all()
    assert qk.grad.isfinite().all()
