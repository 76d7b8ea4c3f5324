"""Gradients against finite differences in float64: each backward pass written by hand, in torch or in compiled loops,
and naive forms that are more than torch's own operations.

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
from zoo.architectures.fnet import fourier
from zoo.layers.random_features import attend_naive as attend_by_features_naive
from zoo.layers.random_features import positive_naive
from zoo.ops import cauchy, elementwise, forms, norms
from zoo.ops.delta_rule import dplr
from zoo.ops.diagonal_scan import scan
from zoo.ops.h3 import h3
from zoo.ops.long_convolution import convolve
from zoo.ops.lsh_attention import lsh_attention, lsh_attention_naive
from zoo.ops.mlstm import mlstm_naive
from zoo.ops.selective_scan import gated_selective_scan, selective_scan_naive
from zoo.ops.short_convolution import Unit
from zoo.ops.slstm import slstm, slstm_naive
from zoo.ops.wkv4 import wkv, wkv_naive

for module in pkgutil.walk_packages(zoo.__path__, "zoo."):
    if not module.name.startswith(("zoo.published", *(["zoo.ops.cpu"] if not forms.available() else []))):
        importlib.import_module(module.name)  # those may want packages that are not here

KINDS = {kind.__name__: kind for kind in torch.autograd.Function.__subclasses__() if kind.__module__.startswith("zoo.")}
KINDS.pop("Balanced", None)  # whose backward pass is no derivative, see `zoo.layers.mixture_of_experts`
"""Every backward pass that is written by hand."""

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
projection, vectors, weight, gate, bonus = normal(5, 3), normal(2, 5, 3), normal(3), normal(2, 5, 3), normal(H, K)


@torch.no_grad()
def last_state(u_, delta_, A_, B_):
    return selective_scan_naive(u_.mT, delta_.mT, A_, B_.mT, B_.mT)[1]


def cell(op):
    """A form of the sLSTM; given h, c and n it continues from them, with padding."""

    def run(*args):
        state = (*args[6:], torch.full_like(args[6], -0.5)) if len(args) > 6 else None
        h, (last, c, n, m) = op(*args[:6], state, ROWS[:, :4] if state else None)
        return h, last, c * m.exp(), n * m.exp()

    return run


def apply(name, *options):
    """A backward pass by hand with the forward pass it belongs to."""
    return lambda *x: KINDS[name].apply(*x, *options)


def short(silu, unit=None):
    return apply("CompiledShortConvolution", silu, unit, False)


def complex_system(length):
    """Decays, inputs and a state of a complex scan."""
    return tuple(0.7 * normal(*s, complex_=True) for s in [(B, length, D), (B, length, D), (B, D)])


convolved = normal(B, 7, D), normal(4, D), normal(D), normal(B, 3, D)
units = *(normal(H, B, 4, D) for _ in range(4)), normal(H, 4, D, D), normal(H, 4, D)
started = normal(B, H, D), normal(B, H, D), uniform(B, H, D) + 1

gated = (
    *(u, normal(B, T, D), A, normal(B, T, N), normal(B, T, N)),
    *(normal(D), normal(B, T, D), normal(D), normal(B, D, N)),
)

by_channel = normal(3, D, B, T), normal(3, D), normal(D, 3), normal(D, N, complex_=True), poles, normal(D)

NAIVE = {
    "LSH attention, causal": (lambda *x: lsh_attention_naive(*x, buckets, chunk=2, causal=True), (q, v)),
    "LSH attention, within buckets, once": (
        lambda *x: lsh_attention_naive(*x, buckets, chunk=2, across_buckets=False, duplicates=False, valid=ROWS[1:]),
        (q, v),
    ),
    "mLSTM, padding": (lambda *x: memory(*mlstm_naive(*x, mask=valid)), (q, k, v, *gates)),
    "features of keys": (lambda x: positive_naive(x, projection, 1e-3), (normal(1, B, 2, 3),)),
    "attention by features": (lambda *x: attend_by_features_naive(*x, projection[:, :K], 1e-12), (q, k, v)),
    "sLSTM": (cell(slstm_naive), units),
    "sLSTM, resumed, padding": (cell(slstm_naive), (*units, *started)),
    "WKV": (lambda *x: weighed(*wkv_naive(*x)), channels),
    "WKV, resumed, padding": (resumed(wkv_naive), (*channels, *carried)),
}
"""Naive forms that detach a tensor, write in place, or are relative to an exponent."""

BY_HAND = {
    "_Scan, real": (scan, (uniform(B, 7, D), normal(B, 7, D), normal(B, D))),
    "_Scan, complex, one step": (scan, complex_system(1)),
    "_Scan, complex": (scan, complex_system(7)[:2]),
    "LastState, time last": (
        lambda u_, delta_, A_, B_: KINDS["LastState"].apply(last_state(u_, delta_, A_, B_), u_, delta_, A_, B_, B_),
        (normal(B, D, T), uniform(B, D, T), A, normal(B, N, T)),
    ),
    "PositiveFeatures": (apply("PositiveFeatures", projection, 1e-3, None, None), (normal(1, B, 2, 3),)),
    "Windows": (apply("Windows", 5, 2), (normal(B, H, 9, K),)),
    "LSHAttention, causal": (by_torch(lambda *x: lsh_attention(*x, buckets, chunk=2, causal=True)), (q, v)),
    "LSHAttention, causal, by loops": (lambda *x: lsh_attention(*x, buckets, chunk=2, causal=True), (q, v)),
    "LSHAttention, each once": (
        lambda *x: lsh_attention(*x, buckets, chunk=2, duplicates=False, across_buckets=False),
        (q, v),
    ),
    "BoundedSqrt, where the slope is free": (apply("BoundedSqrt"), (uniform(B, D),)),
    "HalfTransform, odd": (fourier, (normal(B, T, 3),)),
    "HalfTransform, even": (fourier, (normal(B, 4, 4),)),
    "TiledAttention, causal": (apply("TiledAttention", True, 0.7), (q, k, v)),
    "TiledAttention, shared keys": (apply("TiledAttention", False, 0.7), (q, k[:, :1], v[:, :1])),
    "TiledLinearAttention, a decay, shared keys": (apply("TiledLinearAttention"), (q[:, :1], k[:, :1], v, per_head, S)),
    "TiledChannelDecay, mild": (apply("TiledChannelDecay", None, 0.7), (q, k, v, per_channel, S)),
    "TiledChannelDecay, strong": (apply("TiledChannelDecay", None, 0.7), (q, k, v, 100 * per_channel, S)),
    "TiledChannelDecay, a bonus": (apply("TiledChannelDecay", 0.7), (q, k, v, per_channel, S, bonus)),
    "TiledChannelDecay, strong, a bonus": (apply("TiledChannelDecay", 0.7), (q, k, v, 100 * per_channel, S, bonus)),
    "TiledDeltaRule": (lambda *x: apply("TiledDeltaRule")(*x[:4], None, x[4]), (q, k, v, beta, S)),
    "TiledDeltaRule, gated": (apply("TiledDeltaRule"), (q, k, v, beta, per_head, S)),
    "CompiledDPLR": (dplr, (q, k, v, a, b, per_channel)),
    "CompiledDPLR, resumed": (dplr, (q, k, v, a, b, per_channel, S)),
    "CompiledSelectiveScan, gated, resumed": (gated_selective_scan, gated),
    "CompiledShortConvolution, SiLU": (short(True), convolved),
    "CompiledShortConvolution, linear": (short(False), convolved),
    "CompiledShortConvolution, SiLU, unit": (short(True, Unit((0.3,))), convolved),
    "CompiledShortConvolution, linear, unit": (short(False, Unit((1.0,))), convolved),
    "CompiledConvolve": (convolve, (normal(B, 7, D), normal(D, 7), normal(D))),
    "CompiledH3": (h3, by_channel),
    "CompiledSums": (lambda *x: cauchy.kernel(*x, T), (poles, low_rank, driven, read)),
    "CompiledWKV": (lambda *x: weighed(*wkv(*x)), channels),
    "CompiledWKV, resumed, padding": (resumed(wkv), (*channels, *carried)),
    "CompiledSLSTM": (cell(slstm), units),
    "CompiledSLSTM, resumed, padding": (cell(slstm), (*units, *started)),
    "CompiledPositive": (elementwise.positive, (normal(B, 3),)),
    "CompiledRMS, no gate": (lambda *x: norms.rms(*x, 1e-5), (vectors, weight)),
    "CompiledRMS, SiLU": (lambda o, w, g: norms.rms(o, w, 1e-5, g), (vectors, weight, gate)),
    "CompiledRMS, σ": (lambda o, w, g: norms.rms(o, w, 1e-5, g, "sigmoid"), (vectors, weight, gate)),
    "CompiledRMS, gated": (lambda o, w, g: norms.gated_rms(o, w, 1e-5, g), (vectors, weight, gate)),
}
"""Cases of each `torch.autograd.Function`, which stands first in their names."""

NOT_IN_FLOAT64 = "TiledAttention", "TiledLinearAttention", "TiledChannelDecay", "TiledDeltaRule"
"""No op runs these in float64, as no CPU has products for it, and they take the longest to compile: with --all only. In
the dtypes they run in, their gradients are compared with the naive form's in `cpu/test_recurrences` and
`test_attention`."""


def check(function, inputs):
    assert torch.autograd.gradcheck(function, [x.detach().clone().requires_grad_() for x in inputs])


@pytest.mark.parametrize("name", NAIVE)
def test_naive_form(name):
    check(*NAIVE[name])


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.with_all] * n.startswith(NOT_IN_FLOAT64)) for n in BY_HAND]
)
def test_backward_pass_by_hand(monkeypatch, name):
    kind, used = KINDS.get(name.partition(",")[0]), []
    if kind is None or ("loops" in name and not forms.available()):
        pytest.skip("needs numba")
    backward = kind.backward
    monkeypatch.setattr(kind, "backward", staticmethod(lambda *x: used.append(1) or backward(*x)))
    check(*BY_HAND[name])
    assert used, "the case does not reach the backward pass it is there for"


def test_every_backward_pass_by_hand_is_here():
    here = {name.partition(",")[0] for name in BY_HAND}
    assert KINDS.keys() <= here
    assert KINDS.keys() == here or not forms.available()


def test_the_slope_of_a_bounded_root_is_bounded():
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(KINDS["BoundedSqrt"].apply(x).sum(), x)
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
