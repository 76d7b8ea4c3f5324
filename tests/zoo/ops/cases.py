"""One small input of every public op, beside its naive form: what `test_nonfinite` and `test_kernel_log` go through."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.ops import (
    attention,
    cauchy,
    delta_rule,
    diagonal_scan,
    elementwise,
    fourier,
    glu,
    h3,
    linear,
    linear_attention,
    local_attention,
    long_convolution,
    lsh_attention,
    mlstm,
    norms,
    qkv,
    random_features,
    rotation,
    selective_scan,
    short_convolution,
    slstm,
    ssd,
    vandermonde,
    wkv4,
)
from zoo.ops.elementwise import naive as elementwise_naive
from zoo.ops.fourier.naive import fourier as fourier_naive
from zoo.ops.norms import naive as norms_naive

B, H, T, K, V, D, N = 2, 2, 70, 5, 6, 18, 4
"""T is no other size: inputs that have it vary with time, and are bfloat16 in the cases in half precision."""


class Case(NamedTuple):
    """A public op, its naive form (None where it has no other), and inputs for both.

    `mixed` says along which axis of its first output the fast forms spread a number that is not finite to others that
    the naive form keeps clean (a causal chunk's product multiplies what is masked by 0, a transform adds up all steps).
    What is infinite may be NaN there. None where they must agree on every number.
    """

    op: str
    fast: Callable[..., Any]
    naive: Callable[..., Any] | None
    inputs: tuple[Tensor, ...]
    mixed: int | None = None


def _glu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return glu.glu(x, (gate, None), (up, None), (down, None), torch.sigmoid)


_random = torch.Generator().manual_seed(0)


def _normal(*shape: int) -> Tensor:
    """Numbers that bfloat16 can hold, so that every precision is given the same."""
    return torch.randn(shape, generator=_random).bfloat16().double()


def _positive(*shape: int) -> Tensor:
    return (_normal(*shape).abs() / 2 + 0.125).bfloat16().double()


def _complex(*shape: int) -> Tensor:
    return torch.complex(_normal(*shape), _normal(*shape))


def _poles(*shape: int) -> Tensor:
    return torch.complex(-_positive(*shape), _normal(*shape))


def _fading(*shape: int) -> Tensor:
    """Decays below 1."""
    return _positive(*shape).clamp(max=0.96875)


def _favor(q: Tensor, k: Tensor, v: Tensor, W: Tensor) -> Tensor:
    """Attention by random features that never reads what a query does not see."""
    q, k = random_features.positive_naive(q, W, 1e-3, "features"), random_features.positive_naive(k, W, 1e-3)
    sums, _ = linear_attention.recurrent(q, k, torch.cat([v, torch.ones_like(v[..., :1])], dim=-1))
    return sums[..., :-1] / sums[..., -1:]


def _ratio(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    o, _ = linear_attention.recurrent(q, k, torch.cat([v, torch.ones_like(v[..., :1])], dim=-1))
    return o[..., :-1] / (o[..., -1:] + 1e-3)


_mask = torch.arange(T) < torch.tensor([T, T - 20])[:, None]
_buckets = torch.randint(4, (1, 1, 2, 12), generator=_random)

_q, _k, _v = _normal(B, H, T, K) / 2, _normal(B, H, T, K) / 2, _normal(B, H, T, V)
_unit_k = (_k / _k.norm(dim=-1, keepdim=True)).bfloat16().double()
_per_head, _per_channel, _state = -_positive(B, H, T), -_positive(B, H, T, K), _normal(B, H, K, V)
_gates = tuple(_normal(H, B, T, 5) for _ in range(4))
_rows, _weight = _normal(B, T, D), _normal(D)
_scan = _normal(B, T, D), _positive(B, T, D), -_positive(D, N), _normal(B, T, N), _normal(B, T, N), _normal(D)

CASES = {
    "attention": Case(
        "attention",
        partial(attention.attend, causal=True),
        partial(attention.attend_naive, causal=True),
        (_q, _k, _v),
    ),
    "attention, all keys": Case("attention", attention.attend, attention.attend_naive, (_q, _k, _v)),
    "cauchy": Case(
        "cauchy",
        lambda *x: cauchy.kernel(*x, 9),
        lambda *x: cauchy.kernel_naive(*x, 9),
        (_poles(4, 3), 0.25 * _complex(1, 4, 3), _complex(4, 3), _complex(2, 4, 3)),
        mixed=2,
    ),
    "delta rule": Case(
        "delta_rule",
        delta_rule.delta_rule,
        delta_rule.delta_rule_naive,
        (_q, _unit_k, _v, _fading(B, H, T), _per_head, _state),
        mixed=2,
    ),
    "delta rule, no decay": Case(
        "delta_rule",
        delta_rule.delta_rule,
        delta_rule.delta_rule_naive,
        (_q, _unit_k, _v, _fading(B, H, T)),
        mixed=2,
    ),
    "dplr": Case(
        "dplr",
        delta_rule.dplr,
        delta_rule.dplr_naive,
        (_q, _k, _v, -_unit_k, _unit_k / 2, _per_channel, _state),
        mixed=2,
    ),
    "diagonal scan": Case(
        "diagonal_scan",
        lambda a, b, h0: diagonal_scan.scan(a, b, h0.to(b.dtype)),
        diagonal_scan.scan_naive,
        (_fading(B, T, D), _rows, _normal(B, D)),
    ),
    "positive": Case("positive", elementwise.positive, elementwise_naive.positive, (_rows,)),
    "h3": Case(
        "h3",
        h3.h3,
        h3.h3_naive,
        (_normal(3, 4, B, T), _normal(3, 4), _normal(4, 3), _complex(4, N), _poles(4, N), _normal(4)),
        mixed=2,
    ),
    "linear attention": Case(
        "linear_attention", linear_attention.linear_attention, linear_attention.recurrent, (_q, _k, _v), mixed=2
    ),
    "linear attention, a decay per head": Case(
        "linear_attention",
        linear_attention.linear_attention,
        linear_attention.recurrent,
        (_q, _k, _v, _per_head, _state),
        mixed=2,
    ),
    "linear attention, a decay per channel": Case(
        "linear_attention",
        linear_attention.linear_attention,
        linear_attention.recurrent,
        (_q, _k, _v, _per_channel, _state),
        mixed=2,
    ),
    "linear attention, a bonus": Case(
        "linear_attention",
        lambda *x: linear_attention.linear_attention(*x[:-1], bonus=x[-1]),
        linear_attention.recurrent,
        (_q, _k, _v, _per_channel, _state, _normal(H, K)),
        mixed=2,
    ),
    "linear attention, a mean": Case(
        "linear_attention",
        lambda *x: linear_attention.weighted_mean(*x, 1e-3)[0],
        _ratio,
        (_q.abs(), _k.abs(), _v),
        mixed=2,
    ),
    "local attention": Case(
        "local_attention",
        partial(local_attention.attend, before=5),
        partial(local_attention.attend_naive, before=5),
        (_q, _k, _v),
    ),
    "long convolution": Case(
        "long_convolution",
        long_convolution.convolve,
        long_convolution.convolve_naive,
        (_rows, _normal(D, T), _weight),
        mixed=1,
    ),
    "LSH attention": Case(
        "lsh_attention",
        lambda *x: lsh_attention.lsh_attention(*x, _buckets, chunk=4, causal=True),
        lambda *x: lsh_attention.lsh_attention_naive(*x, _buckets, chunk=4, causal=True),
        (_normal(1, 1, 12, K), _normal(1, 1, 12, V)),
    ),
    "mLSTM": Case("mlstm", mlstm.mlstm, mlstm.mlstm_naive, (_q, _k, _v, _normal(B, H, T), _normal(B, H, T)), mixed=2),
    "unit": Case("unit", norms.unit, None, (_rows,)),
    "simplex": Case("simplex", norms.simplex, None, (_rows,)),
    "rms": Case("rms", partial(norms.rms, eps=1e-5), partial(norms_naive.rms, eps=1e-5), (_rows, _weight)),
    "rms, a gate": Case(
        "rms",
        lambda o, w, gate: norms.rms(o, w, 1e-5, gate),
        lambda o, w, gate: norms_naive.rms(o, w, 1e-5, gate),
        (_rows, _weight, _normal(B, T, D)),
    ),
    "layer": Case("layer", partial(norms.layer, eps=1e-5), None, (_rows, _weight, _normal(D))),
    "linear": Case("linear", linear.linear, None, (_rows, _normal(4, D), _normal(4))),
    "linear, joined": Case("linear", linear.joined, None, (_rows, _normal(4, D), _normal(2, D))),
    "linear, few": Case("linear", linear.few, None, (_rows, _normal(4, D))),
    "queries, keys and values": Case("qkv", partial(qkv.split, heads=4, kv_heads=1), None, (_rows,)),
    "summed": Case(
        "summed",
        partial(norms.summed, eps=1e-5),
        partial(norms_naive.summed, eps=1e-5),
        (_rows, _normal(B, T, D), _weight),
    ),
    "gated rms": Case(
        "gated_rms",
        lambda o, w, gate: norms.gated_rms(o, w, 1e-5, gate),
        lambda o, w, gate: norms_naive.gated_rms(o, w, 1e-5, gate),
        (_rows, _weight, _normal(B, T, D)),
    ),
    "random features": Case(
        "random_features",
        lambda x, W: random_features.positive(x, W, 1e-3),
        lambda x, W: random_features.positive_naive(x, W, 1e-3),
        (_q, _normal(4, K)),
    ),
    "random features, attention": Case(
        "random_features",
        lambda *x: random_features.attend(*x, 1e-3),
        _favor,
        (_q, _k, _v, _normal(4, K)),
        mixed=2,
    ),
    "rotation": Case("rotation", rotation.rotate, None, (_rows, _normal(B, T, 9), _normal(B, T, 9))),
    "Fourier": Case("fourier", fourier.fourier, fourier_naive, (_rows,), mixed=1),
    "GLU": Case("glu", _glu, None, (_rows, _normal(8, D), _normal(8, D), _normal(D, 8))),
    "selective scan": Case(
        "selective_scan",
        selective_scan.selective_scan,
        selective_scan.selective_scan_naive,
        (*_scan, _normal(B, D, N)),
    ),
    "gated selective scan": Case(
        "selective_scan",
        selective_scan.gated_selective_scan,
        selective_scan.gated_selective_scan_naive,
        (_scan[0], _normal(B, T, D), *_scan[2:], _normal(B, T, D), _normal(D), _normal(B, D, N)),
    ),
    "short convolution": Case(
        "short_convolution",
        partial(short_convolution.short_convolution, silu=True),
        partial(short_convolution.short_convolution_naive, silu=True),
        (_rows, _normal(D, 4), _weight, _normal(B, 3, D)),
    ),
    "short convolution, unit vectors and padding": Case(
        "short_convolution",
        lambda x, w: short_convolution.short_convolution(x, w, mask=_mask, unit=short_convolution.Unit((0.5, 0, 1))),
        lambda x, w: short_convolution.short_convolution_naive(
            x, w, mask=_mask, unit=short_convolution.Unit((0.5, 0, 1))
        ),
        (_rows, _normal(D, 2)),
    ),
    "sLSTM": Case("slstm", slstm.slstm, slstm.slstm_naive, (*_gates, _normal(H, 4, 5, 5) / 4, _normal(H, 4, 5))),
    "SSD": Case(
        "ssd",
        ssd.ssd,
        ssd.ssd_naive,
        (_v, _positive(B, H, T), _per_head, _k[:, :1], _q[:, :1], _normal(H, V), _state),
        mixed=2,
    ),
    "Vandermonde kernel": Case(
        "vandermonde",
        lambda *x: vandermonde.evaluate(*x, T),
        lambda *x: vandermonde.evaluate_naive(*x, T),
        (_complex(2, 4, N), _poles(4, N)),
        mixed=2,
    ),
    "Vandermonde state": Case(
        "vandermonde", vandermonde.accumulate, vandermonde.accumulate_naive, (_normal(B, T, 4), _poles(4, N)), mixed=2
    ),
    "WKV": Case("wkv4", wkv4.wkv, wkv4.wkv_naive, (-_positive(D), _weight, _rows, _normal(B, T, D))),
}
