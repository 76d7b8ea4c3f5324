"""The selective scan against the official reference (state-spaces/mamba, selective_scan_ref, recorded in float64)."""

import pytest
import torch
import torch.nn.functional as F

from zoo.ops.selective_scan import chunked, selective_scan, selective_scan_naive


def in_chunks(u, delta, A, *rest):
    return chunked.selective_scan(u, delta, A, *rest, A.new_zeros(len(u), *A.shape), chunk=5)


@pytest.mark.parametrize("form", [selective_scan, in_chunks, selective_scan_naive])
def test_scan(parity, oracle, form):
    recorded, x = parity("mamba1_selective_scan")
    u, delta, B, C, z = (x[name].transpose(1, 2) for name in ("u", "delta", "B", "C", "z"))
    y, h = form(u, F.softplus(delta + x["delta_bias"]), x["A"], B, C, x["D"])
    y = (y * F.silu(z)).transpose(1, 2)
    proof = oracle("mamba", "state-spaces/mamba, selective_scan_ref (recorded)")
    proof.outputs(y, recorded["output"], 1e-9)
    proof.outputs(h, recorded["state.final"], 1e-9)
    got = dict(zip(x, torch.autograd.grad((y * recorded["cotangent"]).sum(), list(x.values())), strict=True))
    proof.gradients(got, {n: recorded.get(f"grad.input.{n}", recorded.get(f"grad.{n}")) for n in x}, 1e-9)
