"""Operators alone, in every form, against official ones that ran in float64 (recorded outside this repository)."""

import pytest
import torch
import torch.nn.functional as F

from zoo.ops.delta_rule import chunked as delta
from zoo.ops.delta_rule import delta_rule, delta_rule_naive
from zoo.ops.linear_attention import linear_attention, recurrent
from zoo.ops.selective_scan import chunked, selective_scan, selective_scan_naive
from zoo.ops.wkv4 import wkv, wkv_naive

LINEAR = {
    "naive": recurrent,
    "chunk 8": lambda *x, **y: linear_attention(*x, **y, chunk=8),
    "chunk 64": linear_attention,
}


def delta_rule_in_chunks(q, k, v, beta):
    return delta.chunked(q, k, v, beta, None, q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1]), C=8)


DELTA = {"naive": delta_rule_naive, "chunk 8": delta_rule_in_chunks, "chunk 64": delta_rule}


def turned(x, *names):
    """Heads (or channels) and time in the other order."""
    return [x[name].transpose(1, 2) for name in names]


@pytest.mark.parametrize("form", LINEAR.values(), ids=LINEAR)
def test_gla_with_a_decay_per_channel_and_a_state(parity, oracle, form):
    data, x = parity("fla_gla")
    q, k, v, gk = turned(x, "q", "k", "v", "gk")
    o, S = form(q * q.shape[-1] ** -0.5, k, v, gk, x["initial_state"])
    proof = oracle("gla", "flash-linear-attention, naive_recurrent_gla (recorded)")
    proof.recorded(o.transpose(1, 2), data, x)
    proof.outputs(S, data["state.final"], 1e-9)


@pytest.mark.parametrize("form", LINEAR.values(), ids=LINEAR)
def test_mamba2_with_a_decay_per_head(parity, oracle, form):
    data, x = parity("mamba2_ssd_minimal")
    o, S = form(*turned(x, "C", "B", "X", "A"))
    proof = oracle("mamba2", "state-spaces/mamba, ssd_minimal (recorded)")
    proof.recorded(o.transpose(1, 2), data, x)
    proof.outputs(S.transpose(-1, -2), data["state.final"], 1e-9)


@pytest.mark.parametrize("form", DELTA.values(), ids=DELTA)
def test_delta_rule(parity, oracle, form):
    data, x = parity("fwp_delta_op")
    q, k, v = (x[name][:, None] for name in ("q", "k", "v"))
    o, S = form(q, k, v, x["beta"].transpose(1, 2))
    proof = oracle("fast_weights", "IDSIA/lmtool-fwp, FastWeightLinear (recorded)")
    proof.recorded(o[:, 0], data, x, 1e-5, 1e-4)
    proof.outputs(S[:, 0].transpose(1, 2), data["state.final"])


def in_chunks(u, delta, A, B, C, D):
    return chunked.selective_scan(u, delta, A, B, C, D, u.new_zeros(len(u), *A.shape), chunk=5)


@pytest.mark.parametrize("form", [selective_scan, in_chunks, selective_scan_naive])
def test_selective_scan(parity, oracle, form):
    data, x = parity("mamba1_selective_scan")
    u, delta, B, C, z = turned(x, "u", "delta", "B", "C", "z")
    y, h = form(u, F.softplus(delta + x["delta_bias"]), x["A"], B, C, x["D"])
    proof = oracle("mamba", "state-spaces/mamba, selective_scan_ref (recorded)")
    proof.recorded((y * F.silu(z)).transpose(1, 2), data, x)
    proof.outputs(h, data["state.final"], 1e-9)


@pytest.mark.parametrize("form", [wkv, wkv_naive], ids=["scan", "naive"])
def test_wkv4(parity, oracle, form):
    """The CUDA kernel of RWKV-v4."""
    data, x = parity("rwkv4_wkv")
    y, state = form(-torch.exp(x["time_decay"]), x["time_first"], x["k"], x["v"])
    proof = oracle("rwkv4", "BlinkDL/RWKV-LM, wkv_cuda.cu (recorded)")
    proof.recorded(y, data, x)
    proof.outputs(state["p"] * state["o"].exp(), data["state.final.a"], 1e-9)
    proof.outputs(state["q"] * state["o"].exp(), data["state.final.b"], 1e-9)
