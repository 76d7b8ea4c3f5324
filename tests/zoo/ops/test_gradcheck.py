"""Gradients against finite differences in float64: each backward pass written by hand, and naive forms that are
more than torch's own operations.

A case is a function and the inputs it is differentiated by. Forms that torch differentiates have their gradients
compared with each other's beside each op.
"""

import importlib
import pkgutil
from functools import wraps
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.gradcheck import GradcheckError

import zoo
from zoo.architectures.fnet import HalfTransform, fourier
from zoo.architectures.rg_lru import BoundedSqrt
from zoo.layers.banded_attention import Windows
from zoo.layers.random_features import PositiveFeatures, positive_naive
from zoo.layers.random_features import attend_naive as attend_by_features_naive
from zoo.ops.diagonal_scan import scan
from zoo.ops.diagonal_scan.chunked import _Scan
from zoo.ops.lsh_attention import lsh_attention, lsh_attention_naive
from zoo.ops.lsh_attention.chunked import LSHAttention
from zoo.ops.mlstm import mlstm_naive
from zoo.ops.selective_scan import selective_scan_naive
from zoo.ops.selective_scan.official import LastState
from zoo.ops.slstm import slstm_naive
from zoo.ops.wkv4 import wkv_naive

B, H, T, K, V, D, N = 2, 2, 5, 2, 3, 2, 2
GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape, complex_=False):
    dtype = torch.complex128 if complex_ else torch.float64
    return torch.randn(shape, generator=GENERATOR, dtype=dtype)


def uniform(*shape, low=0.1, high=0.9):
    return low + (high - low) * torch.rand(shape, generator=GENERATOR, dtype=torch.float64)


q, k, v = normal(1, H, T, K), normal(1, H, T, K), normal(1, H, T, V)
a, b, S = normal(1, H, T, K), normal(1, H, T, K), normal(1, H, K, V)
per_head, per_channel, beta = -uniform(1, H, T), -uniform(1, H, T, K), uniform(1, H, T)
valid = torch.tensor([[True, True, False, True, True]])
buckets = torch.tensor([[[[0, 1, 1, 0, 2], [3, 0, 3, 1, 0]], [[1, 0, 2, 2, 0], [0, 0, 1, 2, 3]]]])

# A diagonal system, half of whose conjugate pairs are given: its poles to the left of the axis.
poles = torch.complex(-uniform(D, N), normal(D, N))
low_rank, driven, read = (0.3 * normal(*n, D, N, complex_=True) for n in ((1,), (), (2,)))
u, delta, A = normal(B, T, D), uniform(B, T, D), -uniform(D, N)


def weighed(outputs, state):
    """wkv's outputs and the sums that its state stands for: p and q alone are relative to an exponent o."""
    return outputs, state["p"] * state["o"].exp(), state["q"] * state["o"].exp()


def memory(outputs, state):
    """As `weighed`, of the mLSTM: C and n are relative to e^m."""
    C, n, m = state
    return outputs, C * m[..., None, None].exp(), n * m[..., None].exp()


ROWS = torch.arange(T) < torch.tensor([T, 2])[:, None]


def resumed(op):
    """A form of wkv that continues from a state, with padding; o is no input, as no gradient runs through it."""

    def run(w, first, keys, values, p, q):
        return weighed(*op(w, first, keys, values, {"p": p, "q": q, "o": torch.full_like(p, -0.5)}, ROWS))

    return run


def by_torch(op):
    """The form of an op that needs no numba."""

    @wraps(op)
    def run(*args, **options):
        with mock.patch("zoo.ops.forms.available", return_value=False):
            return op(*args, **options)

    return run


channels = -uniform(D), normal(D), normal(B, T, D), normal(B, T, D)
carried = normal(B, D), uniform(B, D)
gates = normal(1, H, T), normal(1, H, T) + 1
projection, vectors = normal(5, 3), normal(2, 5, 3)


@torch.no_grad()
def last_state(u_, delta_, A_, B_):
    return selective_scan_naive(u_.mT, delta_.mT, A_, B_.mT, B_.mT)[1]


def cell(op):
    """A form of the sLSTM; given h, c and n it continues from them, with padding."""

    def run(*args):
        state = (*args[6:], torch.full_like(args[6], -0.5)) if len(args) > 6 else None
        h, (last, c, n, m) = op(*args[:6], state, ROWS if state else None)
        return h, last, c * m.exp(), n * m.exp()

    return run


def complex_system(length):
    """Decays, inputs and a state of a complex scan."""
    return tuple(0.7 * normal(*s, complex_=True) for s in [(B, length, D), (B, length, D), (B, D)])


convolved = normal(B, 7, D), normal(4, D), normal(D), normal(B, 3, D)
units = *(normal(H, B, T, 3) for _ in range(4)), normal(H, 4, 3, 3), normal(H, 4, 3)
started = normal(B, H, 3), normal(B, H, 3), uniform(B, H, 3) + 1

gated = (
    *(u, normal(B, T, D), A, normal(B, T, N), normal(B, T, N)),
    *(normal(D), normal(B, T, D), normal(D), normal(B, D, N)),
)

by_channel = normal(3, D, B, T), normal(3, D), normal(D, 3), normal(D, N, complex_=True), poles, normal(D)

# Naive forms that detach a tensor, write in place, or are relative to an exponent: op, name, function, inputs.
NAIVE = [
    ("lsh_attention", "causal", lambda *x: lsh_attention_naive(*x, buckets, chunk=2, causal=True), (q, v)),
    (
        "lsh_attention",
        "within buckets, once",
        lambda *x: lsh_attention_naive(*x, buckets, chunk=2, across_buckets=False, duplicates=False, valid=ROWS[1:]),
        (q, v),
    ),
    ("mlstm", "", lambda *x: memory(*mlstm_naive(*x)), (q, k, v, *gates)),
    ("mlstm", "padding", lambda *x: memory(*mlstm_naive(*x, mask=valid)), (q, k, v, *gates)),
    ("random_features", "keys", lambda x: positive_naive(x, projection, 1e-3), (normal(1, B, 2, 3),)),
    ("random_features", "", lambda *x: attend_by_features_naive(*x, projection[:, :K], 1e-12), (q, k, v)),
    ("slstm", "", cell(slstm_naive), units),
    ("slstm", "resumed, padding", cell(slstm_naive), (*units, *started)),
    ("wkv4", "", lambda *x: weighed(*wkv_naive(*x)), channels),
    ("wkv4", "resumed, padding", resumed(wkv_naive), (*channels, *carried)),
]


# Each autograd.Function, and the names of its cases.
BY_HAND = [
    (_Scan, "real", scan, (uniform(B, 7, D), normal(B, 7, D), normal(B, D))),
    (_Scan, "complex, one step", scan, complex_system(1)),
    (_Scan, "complex", scan, complex_system(7)[:2]),
    (
        LastState,
        "time last",
        lambda u_, delta_, A_, B_: LastState.apply(last_state(u_, delta_, A_, B_), u_, delta_, A_, B_, B_),
        (normal(B, D, T), uniform(B, D, T), A, normal(B, N, T)),
    ),
    (PositiveFeatures, "", lambda x: PositiveFeatures.apply(x, projection, 1e-3, None, None), (normal(1, B, 2, 3),)),
    (Windows, "", lambda x: Windows.apply(x, 5, 2), (normal(B, H, 9, K),)),
    (LSHAttention, "causal", by_torch(lambda *x: lsh_attention(*x, buckets, chunk=2, causal=True)), (q, v)),
    (
        LSHAttention,
        "each once",
        lambda *x: lsh_attention(*x, buckets, chunk=2, duplicates=False, across_buckets=False),
        (q, v),
    ),
    (BoundedSqrt, "where the slope is free", BoundedSqrt.apply, (uniform(B, D),)),
    (HalfTransform, "odd", fourier, (normal(B, T, 3),)),
    (HalfTransform, "even", fourier, (normal(B, 4, 4),)),
]


def check(function, inputs):
    assert torch.autograd.gradcheck(function, [x.detach().clone().requires_grad_() for x in inputs])


def check_backward(monkeypatch, kind, function, inputs):
    """As `check`, and that the backward pass of `kind` is reached."""
    used = []
    backward = kind.backward
    monkeypatch.setattr(kind, "backward", staticmethod(lambda *x: used.append(1) or backward(*x)))
    check(function, inputs)
    assert used, "the case does not reach the backward pass it is there for"


@pytest.mark.parametrize(("function", "inputs"), [case[2:] for case in NAIVE], ids=[f"{c[0]} {c[1]}" for c in NAIVE])
def test_naive_form(function, inputs):
    check(function, inputs)


@pytest.mark.parametrize(
    ("kind", "function", "inputs"),
    [(case[0], *case[2:]) for case in BY_HAND],
    ids=[f"{c[0].__name__} {c[1]}" for c in BY_HAND],
)
def test_backward_pass_by_hand(monkeypatch, kind, function, inputs):
    check_backward(monkeypatch, kind, function, inputs)


def test_every_backward_pass_by_hand_is_here():
    for module in pkgutil.walk_packages(zoo.__path__, "zoo."):
        if not module.name.startswith(("zoo.published", "zoo.ops.cpu")):  # which may want other packages
            importlib.import_module(module.name)
    own = {kind for kind in torch.autograd.Function.__subclasses__() if kind.__module__.startswith("zoo.")}
    assert {case[0] for case in BY_HAND} == {kind for kind in own if not kind.__module__.startswith("zoo.ops.cpu.")}


def test_the_slope_of_a_bounded_root_is_bounded():
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(BoundedSqrt.apply(x).sum(), x)
    assert slope.isfinite().all()


def test_gradcheck_has_power():
    """A backward pass that forgets a factor is caught."""

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return F.silu(x)

        @staticmethod
        def backward(ctx, dy):
            return dy

    with pytest.raises(GradcheckError):
        check(Wrong.apply, [normal(2)])
