"""What does not fit an op's signature is refused in one line; what does is computed, however it lies in memory."""

import re

import pytest
import torch

from zoo.ops.arguments import checker
from zoo.ops.linear_attention import linear_attention
from zoo.ops.mlstm import mlstm
from zoo.ops.norms import rms
from zoo.ops.selective_scan import selective_scan
from zoo.ops.slstm import slstm
from zoo.ops.wkv4 import wkv

loop = pytest.importorskip("zoo.ops.cpu.jit", exc_type=ImportError).loop
from .fuzz import Guarded, GuardedLoops, hunt  # noqa: E402

x = torch.rand
REFUSED = {
    "B is float32 (2, 4, 4) on cpu, expected Float (B, T, N) with B = 2, T = 5, N = 4 on cpu": lambda: selective_scan(
        x(2, 5, 3), x(2, 5, 3), x(3, 4), x(2, 4, 4), x(2, 5, 4)
    ),
    "state is float32 (1, 2, 3, 6) on cpu, expected Float (B, H, K, V) or None with B = 2": lambda: linear_attention(
        x(2, 2, 5, 3), x(2, 2, 5, 3), x(2, 2, 5, 6), state=x(1, 2, 3, 6)
    ),
    "3 heads cannot share 2": lambda: linear_attention(x(1, 2, 5, 3), x(1, 2, 5, 3), x(1, 3, 5, 3)),
    "state is {p: float32 (2, 3) on cpu}, expected {p: Float (B, C), q:": lambda: wkv(
        x(3), x(3), x(2, 5, 3), x(2, 5, 3), {"p": x(2, 3)}
    ),
    "state is (float32 (2, 1, 3, 3) on cpu, float32 (2, 1, 3) on cpu, float32 (2, 2) on cpu), expected": lambda: mlstm(
        *[x(2, 1, 5, 3)] * 3, x(2, 1, 5), x(2, 1, 5), (x(2, 1, 3, 3), x(2, 1, 3), x(2, 2))
    ),
    "mask is int64 (2, 5) on cpu, expected Bool (B, T) or None": lambda: slstm(
        *[x(1, 2, 5, 3)] * 4, x(1, 4, 3, 3), x(1, 4, 3), mask=torch.ones(2, 5, dtype=torch.long)
    ),
    "weight is float32 (3) on meta, expected Float (V) with V = 3 on cpu": lambda: rms(
        x(2, 3), x(3, device="meta"), 1e-5
    ),
    "gate is float32 (3) on cpu, expected Float (*N, V) or None with *N = (2,), V = 3": lambda: rms(
        x(2, 3), x(3), 1e-5, x(3)
    ),
    "activation is 'tanh', expected 'swish' or 'sigmoid'": lambda: rms(x(2, 3), x(3), 1e-5, x(2, 3), "tanh"),
    "q is float32 (2, 1, 0, 3) on cpu, expected Float (B, G, T, K)": lambda: linear_attention(*[x(2, 1, 0, 3)] * 3),
    "chunk is 1180591620717411303424, expected int of 64 bits": lambda: linear_attention(
        *[x(1, 1, 5, 3)] * 3, chunk=1 << 70
    ),
    "o is float32 (2, 3) sparse_coo on cpu, expected Float (*N, V)": lambda: rms(x(2, 3).to_sparse(), x(3), 1e-5),
}


@pytest.mark.parametrize("said", REFUSED)
def test_refused_in_one_line(said):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        REFUSED[said]()
    assert "\n" not in str(error.value)


def test_what_passed_once_is_only_looked_up(monkeypatch):
    check, q = checker(linear_attention), x(1, 2, 5, 3)
    check((q, q, q), {})
    monkeypatch.setattr("zoo.ops.arguments._check", lambda *_: pytest.fail("checked again"))
    check((q + 1, q, q), {})
    for other in (q.double(), q[..., :2], q.to("meta"), q[None]):
        with pytest.raises(pytest.fail.Exception):
            check((q, q, other), {})


@loop
def _one_too_many(start, stop, x):
    for i in range(start, stop + 1):
        x[i] = 1


def test_a_loop_that_writes_beyond_an_array_is_named():
    loops = GuardedLoops(Guarded())
    loops.turn = 1  # the array comes behind the first guard, and bytes are watched behind it
    with pytest.raises(AssertionError, match="_one_too_many wrote beside an array"):
        loops.run(_one_too_many, 8, torch.zeros(8))


def test_random_calls_under_guard_pages(request):
    """In float32, whose loops are compiled by now; with --all in every dtype."""
    many = request.config.getoption("--all")
    assert list(hunt(5000 if many else 200, plain=not many)) == []
