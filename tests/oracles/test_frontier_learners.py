"""Operators of layers that learn as they read, and of Mamba-3, against official ones that ran in float64 (recorded
outside this repository)."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from zoo.architectures.mamba3 import Mamba3
from zoo.contract import LayerContext
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


def test_mamba3(oracle, frontier_parity):
    """Each head alone, as official angles are of a head here, and ours of all; nothing normed, nothing projected."""
    data, x = frontier_parity("mamba3_siso")
    (_, T, H, P), N = x["V"].shape, x["Q"].shape[-1]
    outputs, after = [], {"angle": [], "ssm": [], "k": [], "v": []}
    for h in range(H):
        mixer = Mamba3(LayerContext(width=P, length=T), d_state=N, expand=1, headdim=P).double()
        mixer.in_proj = mixer.out_proj = mixer.B_norm = mixer.C_norm = torch.nn.Identity()
        dt, adt = x["DT"][:, h, :, None], x["ADT"][:, h, :, None]
        q, k = (x[name][:, :, h // (H // x["Q"].shape[2])] for name in "QK")
        raw = [inverse_softplus(dt), inverse_softplus(-adt / dt), x["Trap"][:, h, :, None]]
        features = torch.cat([x["Z"][:, :, h], x["V"][:, :, h], k, q, *raw, x["Angles"][:, :, h]], dim=-1)
        weights = {"dt_bias": torch.zeros(1), "D": x["D"][h, None]}
        weights |= {f"{ours}_bias": x[f"{theirs}_bias"][h, None, None] for ours, theirs in (("B", "K"), ("C", "Q"))}
        state = {"S": x["ssm0"][:, h, None].mT, "angle": x["angle0"][:, h, None]}
        state |= {"k": x["k0"][:, h, None, None], "x": x["v0"][:, h, None]}
        y, end = functional_call(mixer, weights, (features,), {"state": state})
        outputs.append(y)
        for name, z in (("angle", end["angle"]), ("ssm", end["S"].mT), ("k", end["k"][:, :, 0]), ("v", end["x"])):
            after[name].append(z)
    proof = oracle("mamba3", "state-spaces/mamba, mamba3_siso_fwd_ref (recorded)")
    proof.recorded(torch.stack(outputs, dim=2), data, x, 1e-12, 1e-11)
    for name, heads in after.items():
        proof.outputs(torch.cat(heads, dim=1), data[f"state.final.{name}"], 1e-12)


def inverse_softplus(x):
    return x + torch.log(-torch.expm1(-x))
