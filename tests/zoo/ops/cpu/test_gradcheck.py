"""Compiled backward passes against finite differences in float64."""

import importlib
import pkgutil

import pytest
import torch

from zoo.ops import forms

if not forms.available():
    pytest.skip("needs numba", allow_module_level=True)

import zoo.ops.cpu
from zoo.ops import elementwise, norms
from zoo.ops.cauchy import kernel
from zoo.ops.cpu.attention import TiledAttention
from zoo.ops.cpu.cauchy import CompiledSums
from zoo.ops.cpu.channel_decay import TiledChannelDecay
from zoo.ops.cpu.delta_rule import TiledDeltaRule
from zoo.ops.cpu.dplr import CompiledDPLR
from zoo.ops.cpu.elementwise import CompiledPositive
from zoo.ops.cpu.h3 import CompiledH3
from zoo.ops.cpu.linear_attention import TiledLinearAttention
from zoo.ops.cpu.long_convolution import CompiledConvolve
from zoo.ops.cpu.norms import CompiledRMS
from zoo.ops.cpu.selective_scan import CompiledSelectiveScan
from zoo.ops.cpu.short_convolution import CompiledShortConvolution
from zoo.ops.cpu.slstm import CompiledSLSTM
from zoo.ops.cpu.wkv4 import CompiledWKV
from zoo.ops.delta_rule import dplr
from zoo.ops.h3 import h3
from zoo.ops.long_convolution import convolve
from zoo.ops.lsh_attention import lsh_attention
from zoo.ops.lsh_attention.chunked import LSHAttention
from zoo.ops.selective_scan import gated_selective_scan
from zoo.ops.short_convolution import Unit
from zoo.ops.slstm import slstm
from zoo.ops.wkv4 import wkv

from ..test_gradcheck import (
    B,
    D,
    H,
    K,
    S,
    T,
    a,
    b,
    beta,
    buckets,
    by_channel,
    carried,
    cell,
    channels,
    check_backward,
    convolved,
    driven,
    gated,
    k,
    low_rank,
    normal,
    per_channel,
    per_head,
    poles,
    q,
    read,
    resumed,
    started,
    units,
    v,
    vectors,
    weighed,
)


def short(silu, unit=None):
    return lambda *x: CompiledShortConvolution.apply(*x, silu, unit, False)


# Each autograd.Function, and the names of its cases.
CASES = [
    (TiledAttention, "causal", lambda *x: TiledAttention.apply(*x, True, 0.7), (q, k, v)),
    (TiledAttention, "shared keys", lambda *x: TiledAttention.apply(*x, False, 0.7), (q, k[:, :1], v[:, :1])),
    (CompiledSelectiveScan, "gated, resumed", gated_selective_scan, gated),
    (CompiledShortConvolution, "SiLU", short(True), convolved),
    (CompiledShortConvolution, "linear", short(False), convolved),
    (CompiledShortConvolution, "SiLU, unit", short(True, Unit((0.3,))), convolved),
    (CompiledShortConvolution, "linear, unit", short(False, Unit((1.0,))), convolved),
    (CompiledConvolve, "", convolve, (normal(B, 7, D), normal(D, 7), normal(D))),
    (CompiledH3, "", h3, by_channel),
    (CompiledSums, "", lambda *x: kernel(*x, T), (poles, low_rank, driven, read)),
    (CompiledWKV, "", lambda *x: weighed(*wkv(*x)), channels),
    (CompiledWKV, "resumed, padding", resumed(wkv), (*channels, *carried)),
    (
        TiledLinearAttention,
        "a decay, shared keys, resumed",
        TiledLinearAttention.apply,
        (q[:, :1], k[:, :1], v, per_head, S),
    ),
    (TiledChannelDecay, "mild", lambda *x: TiledChannelDecay.apply(*x, None, 0.7), (q, k, v, per_channel, S)),
    (TiledChannelDecay, "strong", lambda *x: TiledChannelDecay.apply(*x, None, 0.7), (q, k, v, 100 * per_channel, S)),
    (
        TiledChannelDecay,
        "a bonus",
        lambda *x: TiledChannelDecay.apply(*x, 0.7),
        (q, k, v, per_channel, S, normal(H, K)),
    ),
    (
        TiledChannelDecay,
        "strong, a bonus",
        lambda *x: TiledChannelDecay.apply(*x, 0.7),
        (q, k, v, 100 * per_channel, S, normal(H, K)),
    ),
    (TiledDeltaRule, "", lambda *x: TiledDeltaRule.apply(*x[:4], None, x[4]), (q, k, v, beta, S)),
    (TiledDeltaRule, "gated", TiledDeltaRule.apply, (q, k, v, beta, per_head, S)),
    (CompiledPositive, "", elementwise.positive, (normal(B, 3),)),
    (CompiledDPLR, "", dplr, (q, k, v, a, b, per_channel)),
    (CompiledDPLR, "resumed", dplr, (q, k, v, a, b, per_channel, S)),
    (CompiledSLSTM, "", cell(slstm), units),
    (CompiledSLSTM, "resumed, padding", cell(slstm), (*units, *started)),
    (LSHAttention, "loops", lambda *x: lsh_attention(*x, buckets, chunk=2, causal=True), (q, v)),
    (CompiledRMS, "no gate", lambda *x: norms.rms(*x, 1e-5), (vectors, normal(3))),
    (CompiledRMS, "SiLU", lambda o, w, g: norms.rms(o, w, 1e-5, g), (vectors, normal(3), normal(2, 5, 3))),
    (CompiledRMS, "σ", lambda o, w, g: norms.rms(o, w, 1e-5, g, "sigmoid"), (vectors, normal(3), normal(2, 5, 3))),
    (CompiledRMS, "gated", lambda o, w, g: norms.gated_rms(o, w, 1e-5, g), (vectors, normal(3), normal(2, 5, 3))),
]


NOT_IN_FLOAT64 = (TiledLinearAttention, TiledChannelDecay, TiledDeltaRule)
"""Nobody runs these in float64, and each takes some forty seconds to compile: with --all only. In the dtypes they run
in, they are compared with the naive form in `test_recurrences`."""


@pytest.mark.parametrize(
    ("kind", "function", "inputs"),
    [
        pytest.param(kind, *case, id=f"{kind.__name__} {name}", marks=[pytest.mark.with_all] * (kind in NOT_IN_FLOAT64))
        for kind, name, *case in CASES
    ],
)
def test_compiled_backward_pass(monkeypatch, kind, function, inputs):
    check_backward(monkeypatch, kind, function, inputs)


def test_every_compiled_backward_pass_is_here():
    for module in pkgutil.iter_modules(zoo.ops.cpu.__path__, "zoo.ops.cpu."):
        importlib.import_module(module.name)
    own = {kind for kind in torch.autograd.Function.__subclasses__() if kind.__module__.startswith("zoo.ops.cpu.")}
    assert {case[0] for case in CASES} <= own | {LSHAttention}
    assert own <= {case[0] for case in CASES}
