"""One small input of every public op, beside its naive form: what `test_every_op` goes through."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.layers import linear, mlp, qkv, random_features
from zoo.ops import (
    attention,
    carried_attention,
    diagonal_scan,
    linear_attention,
    log_linear_attention,
    mesa,
    norms,
    slot_attention,
    softmax_delta,
    ttt,
)
from zoo.ops.short_convolution import Unit

B, H, T, K, V, D, N = 2, 2, 70, 5, 6, 18, 4
"""T is no other size: inputs that have it vary with time, and are bfloat16 in the cases in half precision."""


class Case(NamedTuple):
    """A public op, its naive form (None where it has no other), and inputs for both.

    `mixed` says along which axis of its first output the fast forms spread a number that is not finite to others that
    the naive form keeps clean, as a causal chunk's product multiplies what is masked by 0. What is infinite may be NaN
    there. None where they must agree on every number.
    """

    op: str
    fast: Callable[..., Any]
    naive: Callable[..., Any] | None
    inputs: tuple[Tensor, ...]
    mixed: int | None = None


def _case(path: str, *inputs: Tensor, op: str = "", mixed: int | None = None, **options: Any) -> Case:
    """Of a path within zoo.ops, or zoo: the public function, and its naive form, with the same options."""
    module, _, name = path.rpartition(".")
    public = import_module(f"zoo.{module}" if "." in module else f"zoo.ops.{module}")
    naive = getattr(public, f"{name}_naive", None) or getattr(import_module(f"{public.__name__}.naive"), name)
    fast, slow = partial(getattr(public, name), **options), partial(naive, **options)
    return Case(op or module.rpartition(".")[2], fast, slow, inputs, mixed)


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
_beta, _per_head, _per_channel = _fading(B, H, T), -_positive(B, H, T), -_positive(B, H, T, K)
_state, _gates = _normal(B, H, K, V), tuple(_normal(H, B, T, 5) for _ in range(4))
_rows, _others, _weight = _normal(B, T, D), _normal(B, T, D), _normal(D)
_A, _B, _C = -_positive(D, N), _normal(B, T, N), _normal(B, T, N)
_gated_scan = _rows, _others, _A, _B, _C, _normal(D), _normal(B, T, D), _normal(D), _normal(B, D, N)
_gram = (lambda x: (x @ x.mT).bfloat16().double())(_normal(B, H, K, K) / 2)
_recurrent, _mean = linear_attention.recurrent, partial(linear_attention.weighted_mean, eps=1e-3)


def _carried(name: str, *inputs: Tensor) -> Case:
    """What it returns, without the values and what is None."""

    def tensors(form: Callable[..., Any], *inputs: Tensor) -> tuple[Tensor, Tensor]:
        o, new = form(*inputs)
        return o, new["k"]

    forms = (getattr(carried_attention, f"{name}_attention{which}") for which in ("", "_naive"))
    return Case("carried_attention", *(partial(tensors, form) for form in forms), inputs)


def _linear(*inputs: Tensor) -> Case:
    return Case("linear_attention", linear_attention.linear_attention, _recurrent, inputs, mixed=2)


def _flat(op: Callable[..., Any]) -> Callable[..., Any]:
    """A form of an op whose state is two tensors, the last two of the inputs."""

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        y, state = op(*inputs[:-2], inputs[-2:])
        return y, *state

    return run


CASES = {
    "attention": _case("attention.attend", _q, _k, _v, causal=True),
    "attention, all keys": _case("attention.attend", _q, _k, _v),
    "attention, sinks and a bias of keys": Case(
        "attention",
        lambda q, k, v, bias, sink: attention.attend(q, k, v, causal=True, bias=bias, sink=sink),
        lambda q, k, v, bias, sink: attention.attend_naive(q, k, v, causal=True, bias=bias, sink=sink),
        (_q, _k, _v, _normal(B, H, 1, T), _normal(H)),
    ),
    "cauchy": _case("cauchy.kernel", _poles(4, 3), 0.25 * _complex(1, 4, 3), _complex(4, 3), _complex(2, 4, 3), L=9),
    "delta rule": _case("delta_rule.delta_rule", _q, _unit_k, _v, _beta, _per_head, _state, mixed=2),
    "delta rule, no decay": _case("delta_rule.delta_rule", _q, _unit_k, _v, _beta, mixed=2),
    "dplr": _case("delta_rule.dplr", _q, _k, _v, -_unit_k, _unit_k / 2, _per_channel, _state, op="dplr", mixed=2),
    "diagonal scan": Case(
        "diagonal_scan",
        lambda a, b, h0: diagonal_scan.scan(a, b, h0.to(b.dtype)),
        diagonal_scan.scan_naive,
        (_fading(B, T, D), _rows, _normal(B, D)),
    ),
    "positive": _case("elementwise.positive", _rows, op="positive"),
    "parallax": _case("parallax.parallax", _q, _normal(B, H, T, K) / 2, _k, _v),
    "path attention": _carried("path", _q, _k, _v, _unit_k, _beta, _per_head),
    "wall attention": _carried("wall", _q, _k, _v, _per_channel, _per_head),
    "h3": _case("h3.h3", _normal(3, 4, B, T), _normal(3, 4), _normal(4, 3), _complex(4, N), _poles(4, N), _normal(4)),
    "linear attention": _linear(_q, _k, _v),
    "linear attention, a decay per head": _linear(_q, _k, _v, _per_head, _state),
    "linear attention, a decay per channel": _linear(_q, _k, _v, _per_channel, _state),
    "linear attention, a bonus": Case(
        "linear_attention",
        lambda *x: linear_attention.linear_attention(*x[:-1], bonus=x[-1]),
        _recurrent,
        (_q, _k, _v, _per_channel, _state, _normal(H, K)),
        mixed=2,
    ),
    "linear attention, a mean": Case(
        "linear_attention", lambda *x: _mean(*x)[0], _ratio, (_q.abs(), _k.abs(), _v), mixed=2
    ),
    "local attention": _case("layers.banded_attention.attend", _q, _k, _v, op="local_attention", before=5),
    "log-linear attention": Case(
        "log_linear_attention",
        lambda *x: log_linear_attention.log_linear_attention(*x)[0],
        lambda *x: log_linear_attention.log_linear_attention_naive(*x)[0],
        (_q, _k, _v, _per_head, _normal(B, H, T, 6)),
        mixed=2,
    ),
    "log-linear delta rule": Case(
        "log_linear_delta_rule",
        lambda *x: log_linear_attention.log_linear_delta_rule(*x)[0],
        lambda *x: log_linear_attention.log_linear_delta_rule_naive(*x)[0],
        (_q, _unit_k, _v, _beta, _per_head, _normal(B, H, T, 6)),
        mixed=3,
    ),
    "long convolution": _case("long_convolution.convolve", _rows, _normal(D, T), _weight),
    "LSH attention": _case(
        "lsh_attention.lsh_attention",
        *(_normal(1, 1, 12, K), _normal(1, 1, 12, V)),
        buckets=_buckets,
        chunk=4,
        causal=True,
    ),
    "LSH attention, short chunks": _case(
        "lsh_attention.lsh_attention", *(_normal(1, 1, 10, K), _normal(1, 1, 10, V)), buckets=_buckets[..., 2:], chunk=4
    ),
    "mesa": Case(
        "mesa",
        _flat(mesa.mesa),
        _flat(mesa.mesa_naive),
        (_unit_k.flip(2), _unit_k, _v, _beta, _per_head, _positive(H, K) + 0.25, _gram, _state),
        mixed=2,
    ),
    "mLSTM": _case("mlstm.mlstm", _q, _k, _v, _normal(B, H, T), _normal(B, H, T), mixed=2),
    "unit": Case("unit", norms.unit, None, (_rows,)),
    "simplex": Case("simplex", norms.simplex, None, (_rows,)),
    "rms": _case("norms.rms", _rows, _weight, eps=1e-5, op="rms"),
    "rms, a gate": Case(
        "rms",
        lambda o, w, gate: norms.rms(o, w, 1e-5, gate),
        lambda o, w, gate: norms.naive.rms(o, w, 1e-5, gate),
        (_rows, _weight, _others),
    ),
    "layer": Case("layer", partial(norms.layer, eps=1e-5), None, (_rows, _weight, _normal(D))),
    "gated rms": Case(
        "gated_rms",
        lambda o, w, gate: norms.gated_rms(o, w, 1e-5, gate),
        lambda o, w, gate: norms.naive.gated_rms(o, w, 1e-5, gate),
        (_rows, _weight, _others),
    ),
    "linear, joined": Case("linear", linear.joined, None, (_rows, _normal(4, D), _normal(2, D))),
    "linear, few": Case("linear", linear.few, None, (_rows, _normal(4, D))),
    "queries, keys and values": Case("qkv", partial(qkv.split, heads=4, kv_heads=1), None, (_rows,)),
    "random features": _case("layers.random_features.positive", _q, _normal(4, K), eps=1e-3),
    "random features, attention": Case(
        "random_features", partial(random_features.attend, eps=1e-3), _favor, (_q, _k, _v, _normal(4, K)), mixed=2
    ),
    "rotation": Case("rotation", qkv.rotate, None, (_rows, _normal(B, T, 9), _normal(B, T, 9))),
    "Fourier": _case("architectures.fnet.fourier", _rows, op="fourier", mixed=1),
    "GLU": Case(
        "glu",
        lambda x, gate, up, down: mlp.glu(x, (gate, None), (up, None), (down, None), torch.sigmoid),
        None,
        (_rows, _normal(8, D), _normal(8, D), _normal(D, 8)),
    ),
    "selective scan": _case(
        "selective_scan.selective_scan", _rows, _positive(B, T, D), _A, _B, _C, _normal(D), _normal(B, D, N)
    ),
    "gated selective scan": _case("selective_scan.gated_selective_scan", *_gated_scan),
    "short convolution": _case(
        "short_convolution.short_convolution", _rows, _normal(D, 4), _weight, _normal(B, 3, D), silu=True
    ),
    "short convolution, unit vectors and padding": _case(
        "short_convolution.short_convolution", _rows, _normal(D, 2), mask=_mask, unit=Unit((0.5, 0, 1))
    ),
    "softmax delta rule": Case(
        "softmax_delta",
        lambda *x: softmax_delta.softmax_delta(*x)["u"],
        lambda *x: softmax_delta.softmax_delta_naive(*x)["u"],
        (_q, _k, _v, _beta),
    ),
    "slot attention": Case(
        "slot_attention",
        lambda *x: slot_attention.slot_attention(*x[:5], x[5:]),
        lambda *x: slot_attention.slot_attention_naive(*x[:5], x[5:]),
        (_q, _k, _v, _fading(B, H, T, N), -_positive(B, H, T, N), _normal(B, H, K, N), _normal(B, H, N, V)),
        mixed=2,
    ),
    "sLSTM": _case("slstm.slstm", *_gates, _normal(H, 4, 5, 5) / 4, _normal(H, 4, 5)),
    "Titans": Case(
        "ttt",
        lambda *x: ttt.titans_linear(*x[:-2], (*x[-2:], torch.tensor([3, 0])), size=16),
        lambda *x: ttt.titans_linear_naive(*x[:-2], (*x[-2:], torch.tensor([3, 0])), size=16),
        (_q, _k, _v / 4, _beta / 4, _per_head, _per_head.flip(2), _normal(H, V), _normal(H, V), *[_state] * 3),
        mixed=2,
    ),
    "TTT-Linear": Case(
        "ttt",
        lambda *x: ttt.ttt_linear(*x[:-1], (x[-1], torch.tensor([3, 0])), size=16),
        lambda *x: ttt.ttt_linear_naive(*x[:-1], (x[-1], torch.tensor([3, 0])), size=16),
        (_q, _k, _v / 4, _beta / 4, _beta[:, :1], _normal(H, V), _normal(H, V), _state, _state / 4),
        mixed=2,
    ),
    "Vandermonde kernel": _case("layers.vandermonde.evaluate", _complex(2, 4, N), _poles(4, N), L=T, mixed=2),
    "Vandermonde state": _case("layers.vandermonde.accumulate", _normal(B, T, 4), _poles(4, N), mixed=2),
    "WKV": _case("wkv4.wkv", -_positive(D), _weight, _rows, _others),
}
