"""Operators of layers that learn as they read, against official ones that ran in float64 (recorded outside this
repository)."""

import pytest
import torch
import torch.nn.functional as F

from zoo.ops.mesa import mesa, mesa_naive
from zoo.ops.ttt import ttt_linear, ttt_linear_naive


def turned(x, *names):
    """Heads and time in the other order."""
    return [x[name].transpose(1, 2) for name in names]


@pytest.mark.parametrize("form", [mesa, mesa_naive])
def test_mesa(frontier_parity, oracle, form):
    data, x = frontier_parity("fla_mesa_net_exact")
    o, state = form(*turned(x, "q", "k", "v", "beta", "g"), x["lamb"], (x["h_kk_init"], x["h_kv_init"]))
    proof = oracle("mesa_net", "flash-linear-attention, naive_mesa_net_exact (recorded)")
    proof.recorded(o.transpose(1, 2), data, x)
    for found, name in zip(state, ("h_kk", "h_kv"), strict=True):
        proof.outputs(found, data[f"state.final.{name}"], 1e-9)


@pytest.mark.parametrize("form", [ttt_linear, ttt_linear_naive])
def test_ttt_linear(frontier_parity, oracle, form):
    """fla has one rate for each query, in our words c, and adds what the model returns to its norm."""
    data, x = frontier_parity("fla_ttt_linear")
    q, k, v, eta = turned(x, "q", "k", "v", "eta")
    W = torch.cat([x["initial_state"], x["initial_state_bias"]], dim=2)
    u, key = (F.pad(z, (0, 1), value=1.0) for z in (q * q.shape[-1] ** -0.5, k))
    rate, step, norm = torch.ones_like(eta[..., 0]), eta[..., 0], (x["w"], x["b"])
    z, (W, G, count) = form(u, key, v - k, rate, step, *norm, W, size=12)
    w, b = (parameter[:, None] for parameter in norm)
    o = z + w * F.layer_norm(z, z.shape[-1:], eps=1e-6) + b
    proof = oracle("ttt_linear", "flash-linear-attention, chunk_ttt_linear_ref (recorded)")
    proof.recorded(o.transpose(1, 2), data, x)
    proof.outputs(W, torch.cat([data["state.final.h"], data["state.final.hb"]], dim=2), 1e-9)
    assert not G.any()
    assert not count.any()
